"""What every training shares: optimisers, schedule, saved state, processes, log and weights."""
