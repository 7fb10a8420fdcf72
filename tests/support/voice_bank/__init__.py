"""A bank of voices: songs with known words, pitch and stems, sung by Kokoro's voices over FluidR3's instruments.

    from tests.support import voice_bank
    song = voice_bank.song("harbour")     # one of voice_bank.SONGS; made at first, then from the cache
    song.mix, song.vocals, song.instrumental, song.f0_hz, song.lyrics
    voice_bank.spoken("harbour", 0)       # its first line as speech

Kokoro speaks a line, WORLD analyses it, stretches its vowels onto the beat and gives it a melody. What is needed comes
out of packages by hash (`packages`) and is kept in heartvoice's cache folder. Nothing of it is committed.
"""

from tests.support.voice_bank.songs import SONG_S, SONGS, BankLine, BankSong, song, spoken

__all__ = ["SONGS", "SONG_S", "BankLine", "BankSong", "song", "spoken"]
