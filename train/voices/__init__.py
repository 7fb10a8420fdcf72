"""Sources of synthetic singing: Kokoro's voices, English phonemes, FluidR3's instruments; pinned by hash."""
