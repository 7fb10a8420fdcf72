"""The demo world's converter: a small seed-vc, trained on what only synthesis has, the same song by two singers."""
