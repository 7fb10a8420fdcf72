"""Jobs from end to end: song, song in a voice, cover, as generators over the stages."""
