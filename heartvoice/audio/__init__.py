"""Signal processing and audio files: decoding, encoding, loudness, stereo image, mix and limiter."""
