"""Quality of covers, measured from files: similarity, pitch, separation, loudness. Needs the extra `evaluate`."""
