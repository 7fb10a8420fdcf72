"""Quality of covers from their files alone: similarity, pitch, separation, loudness. Needs the extra `evaluate`."""
