"""Rates, units and limits that contracts, stages and clients share."""

from __future__ import annotations

CONTRACT = "1"
"""Version of all contracts: the models' version in Triton, and `contract` in reports.
docs/how-to/integrate.md says what may change within one."""
SAMPLE_RATE_HZ = 48_000
FRAMES_PER_S = 12.5
"""LM frames per second; one frame is one code per codebook, 80 ms."""
FRAME_HOP = 3840
"""Samples of one frame at 48 kHz."""
N_CODEBOOKS = 8
CODES_PER_UNIT = 93
"""Codec windows are multiples of 93 frames, 7.44 s (heartcodec spec, section 7)."""
LATENTS_PER_FRAME = 2
DECODER_HISTORY = 44
"""Latent frames of past that reach one sample of the scalar decoder (heartcodec spec, section 10)."""
DECODER_LOOKAHEAD = 2
"""Latent frames of future that reach one sample of the scalar decoder."""
MAX_RESPONSE_SAMPLES = 3_000_000 // (2 * 4)
"""Stereo float32 samples of one streamed response: plain gRPC clients stop at 4 MB."""
GREEDY_BELOW = 1e-4
"""LM sampling temperature below which the likeliest code is taken: logits that differ by more than engines round leave
no other choice there, and divisions by still smaller numbers overflow."""
CONNECT_TIMEOUT_S = 5.0
"""Longest attempt to connect, TLS included. gRPC names it a wait between attempts (`min_reconnect_backoff_ms`)."""
MAX_TEXT_BYTES = 20_000
"""UTF-8 bytes of lyrics, and of tags."""
MAX_DURATION_S = 240.0
MAX_FRAMES = round(MAX_DURATION_S * FRAMES_PER_S) + 1
"""Frames of the longest song; the reference makes one more than its duration (heartmula spec, section 9)."""
STEM_RATE_HZ = 44_100
"""Separation and conversion work at this rate; vocals go from one to the other untouched."""
SPEECH_RATE_HZ = 16_000
"""Speaker and F0 networks hear this rate."""
F0_RATE_HZ = 100
"""F0 contours, whatever the engine's own grid: Hz, 0 = unvoiced."""
MIN_INPUT_RATE_HZ, MAX_INPUT_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 2
MAX_LEVEL = 100.0
"""Largest sample, 40 dB over full scale: beyond it samples are integers that nobody scaled, or a network has failed."""
MAX_FEATURE = 1000.0
"""Largest value of a latent or of a style vector; those that networks make are below 10."""
MIN_RECORDING_S, MAX_RECORDING_S = 1.0, 600.0
MIN_VOICE_S, MAX_VOICE_S = 3.0, 60.0
"""Shortest reference, and the most of a longer one that is used."""
MIN_SPEECH_S = 0.5
"""A shorter recording says nothing about a speaker."""
MAX_CONSENT_CHARS = 500
BIDI_CONTROLS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode's overrides and embeddings of direction: text with them reads as something else than it says."""
MAX_RESPONSE_BYTES = 3_000_000
AUDIO_FORMATS = ("wav", "flac", "mp3", "ogg")
MAX_FILE_BYTES = 100_000_000
"""The largest file in a request or an answer."""
MAX_LOCAL_FILE_BYTES = 1_000_000_000
"""The largest file that programs read on their own machine: ten minutes of stereo at 192 kHz in float32."""
NO_VOCALS_MODES = ("error", "passthrough", "convert")
AUTO_PITCH_DOES = {
    "off": "the singing stays at its pitch",
    "exact": "the singing moves to the voice's median pitch, out of tune with the band",
    "semitone": "the singing moves to the voice's median pitch by whole semitones, into another key than the band's",
    "octave": "the singing moves towards the voice's median pitch by whole octaves, and stays in the band's key",
}
"""What each mode of `auto_pitch` does, in the words of help, documents and reports."""
AUTO_PITCH_MODES = tuple(AUTO_PITCH_DOES)
AUTO_PITCH_HELP = f"{'; '.join(f'{mode}: {does}' for mode, does in AUTO_PITCH_DOES.items())}."
DEFAULT_AUTO_PITCH = "octave"
REFERENCE_CHECK_MODES = ("warn", "strict", "off")
DEFAULT_REFERENCE_CHECK = "warn"
UNKNOWN_WORDS_DOES = {
    "nearest": "the word of the vocabulary that sounds most alike is sung",
    "skip": "they are left out",
    "refuse": "the request is refused",
}
"""What each mode of `unknown_words` does, in the words of help and documents."""
UNKNOWN_WORDS_MODES = tuple(UNKNOWN_WORDS_DOES)
DEFAULT_UNKNOWN_WORDS = "nearest"
UNKNOWN_WORDS_HELP = (
    "What becomes of words that the model does not know, if its vocabulary is closed. "
    f"{'; '.join(f'{mode}: {does}' for mode, does in UNKNOWN_WORDS_DOES.items())}. Default: {DEFAULT_UNKNOWN_WORDS}."
)
MIX_STEM_NAMES = ("instrumental", "vocals")
MIN_PROMPT_S, MAX_PROMPT_S = 3.0, 25.0
"""The longest prompt is the original's, and as there it is what the reference begins with."""
SIGNING_KEYS_VARIABLE = "HEARTVOICE_SIGNING_KEYS"
"""Environment variable of a server's processes: the folder of the keys that sign what `render` encodes."""
MAX_UNREAD_MB = 4096
"""Requests and unread answers that the server process may hold; beyond it new jobs are refused. 44 songs of 92 MB."""
WATERMARK_KEY_VARIABLE = "HEARTVOICE_WATERMARK_KEY"
"""Environment variable that names the file of the key that a server marks songs with."""
