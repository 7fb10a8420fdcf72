"""The demo world: procedural songs whose every 80 ms frame is eight codes, and what is trained on them."""
