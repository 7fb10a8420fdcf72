"""The separator: plan, request, transform and stage."""
