"""Training of the demo preset's language model: tags and lyrics to codes."""
