"""The gate of sound: fixed songs and covers, measured against a world whose true sound is known."""
