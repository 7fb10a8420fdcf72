"""A registry of voices whose owners agreed: consents, checks, signed records, encrypted references, purge."""
