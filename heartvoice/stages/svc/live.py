"""Live conversion: the vocals come in several requests, which different processes may serve.

The only state between two requests is a vector that travels with them. The result depends on the vocals and on where
they were cut. With all vocals in one request it equals the exact conversion, sample by sample. Otherwise it differs:

* The automatic shift is that of the vocals so far. It stays when 10 s of them were voiced, because a song keeps its key
  when a later verse is higher. Before that, an octave stays unless the vocals are clearly nearer to another. The report
  has the difference to the shift of all vocals.
* The regulator's norms, the content encoder and the pitch engine use the last 5 to 10 s and the request's vocals, not
  the whole song.
* The flow's windows begin and end with requests.
* The last half second of a request waits for the next one, so that every converted frame has a look-ahead.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.levels import heard
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import F0_RATE_HZ, MAX_LEVEL, SPEECH_RATE_HZ
from heartvoice.contracts.field_checks import check_finite
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.f0 import VOICED_ABOVE_HZ
from heartvoice.stages.svc.pitch import shifted
from heartvoice.stages.svc.report import make_report
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.stage import ConvertStage, SourceFeatures
from heartvoice.stages.svc.vocals import MAX_VOCALS_SAMPLES, check_vocals
from heartvoice.stages.svc.voice_features import SAMPLES_PER_VALUE, VoiceFeatures
from heartvoice.stages.svc.windows import OVERLAP_FRAMES, WindowJoiner

Floats = NDArray[np.float32]

GRID_SAMPLES = 441 * SVC_HOP
"""5.12 s: the common period of the frames of mel, content, pitch and resampling. The context begins on this grid, so
that every frame lies where it would lie in the whole song."""
CONTEXT_SAMPLES = GRID_SAMPLES
"""Least context before the first new frame."""
LOOKAHEAD_FRAMES = 43
"""Half a second."""
LEAST_FRAMES = 64
"""A window between others has two overlaps, and frames between them."""
SETTLED_VALUES = 10 * F0_RATE_HZ
"""Voiced values after which the automatic shift is fixed."""

_VERSION = 2
_NUMBERS = 12
"""Numbers in a packed state, apart from its version, checksum and owner."""
_SHIFT_AT = 6
"""Index of the automatic shift. It and the level after it are the only ones that are no counts."""
_MOST_LEVEL = 200.0
"""dBFS, either way: beyond all that float32 samples have."""
_MOST_SHIFT = 120.0
"""Semitones: ten octaves, more than between any two voices."""
_BASE = 2**16
"""Integers are packed as digits of this base, which a float32 holds exactly."""
_TAIL = OVERLAP_FRAMES * SVC_HOP


def _none() -> Floats:
    return np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class LiveState:
    """The state of a live conversion between two requests."""

    n_received: int = 0
    """Samples received."""
    next_frame: int = 0
    """First frame of the next window."""
    n_windows: int = 0
    n_values: int = 0
    """Contour values in the statistics."""
    settled: bool = False
    shift: float = 0.0
    """Automatic shift of the last window in semitones."""
    level_dbfs: float = -_MOST_LEVEL
    """Level of the voice in the vocals so far."""
    voiced: Floats = field(default_factory=_none)
    """The voiced ones among these values, in Hz, ..."""
    levels: Floats = field(default_factory=_none)
    """... and their levels in dBFS."""
    tail: Floats = field(default_factory=_none)
    """End of the last window, for the cross-fade; empty before the first window."""
    audio: Floats = field(default_factory=_none)
    """The vocals from `context_start` on."""

    @property
    def context_start(self) -> int:
        """First sample of the context."""
        return max(0, (self.next_frame * SVC_HOP - CONTEXT_SAMPLES) // GRID_SAMPLES * GRID_SAMPLES)

    @property
    def heard(self) -> Floats:
        """The voiced values that count in statistics, in Hz."""
        return self.voiced[heard(self.levels, self.level_dbfs)]

    def pack(self, owner: tuple[int, ...]) -> Floats:
        """Pack the state as float32 [S]; `owner` identifies the conversion."""
        counts = [*_digits(self.n_received), self.next_frame, self.n_windows, self.n_values, self.settled]
        arrays = (self.voiced, self.levels, self.tail, self.audio)
        numbers = [*owner, *counts, self.shift, self.level_dbfs, *map(len, arrays)]
        body = np.concatenate([np.array(numbers, np.float32), *arrays])
        return np.concatenate([np.array([_VERSION, *_digits(crc32(body.tobytes()))], np.float32), body])

    @classmethod
    def unpack(cls, packed: NDArray[Any], owner: tuple[int, ...]) -> LiveState:
        """The reverse of `pack`.

        Raises:
            InvalidRequestError: the vector is damaged or inconsistent, or belongs to another voice or other settings.
        """
        n_numbers, n_before = len(owner) + _NUMBERS, 3
        if packed.dtype != np.float32 or packed.ndim != 1 or len(packed) < n_before + n_numbers:
            raise InvalidRequestError(
                f"state: expected float32 [at least {n_before + n_numbers}], got {packed.dtype} {list(packed.shape)}"
            )
        body = packed[n_before:]
        if packed[0] != _VERSION:
            raise InvalidRequestError(f"state: expected version {_VERSION}, got {packed[0]:g}")
        if tuple(packed[1:n_before].tolist()) != _digits(crc32(body.tobytes())):
            raise InvalidRequestError("state: it is damaged: its checksum does not fit")
        if tuple(body[: len(owner)].tolist()) != owner:
            raise InvalidRequestError("state: it belongs to a conversion with another voice or other settings")
        # A checksum is no signature: the caller may have written any values that follow.
        check_finite("state", body)
        numbers = body[len(owner) : n_numbers].tolist()
        shift, level = numbers.pop(_SHIFT_AT), numbers.pop(_SHIFT_AT)
        if np.signbit(numbers).any() or not all(number.is_integer() for number in numbers):  # -0.0 is no count
            raise InvalidRequestError("state: expected counts, got negative or fractional ones")
        high, low, next_frame, n_windows, n_values, settled, *lengths = map(int, numbers)
        if low >= _BASE or settled > 1:
            raise InvalidRequestError(f"state: expected digits below {_BASE} and 0 or 1, got {low} and {settled}")
        if sum(lengths) != len(body) - n_numbers:
            raise InvalidRequestError(
                f"state: expected {sum(lengths)} samples and pitches, got {len(body) - n_numbers}"
            )
        ends = n_numbers + np.cumsum([0, *lengths])
        arrays = [body[start:end].copy() for start, end in pairwise(ends)]
        n_received = high * _BASE + low
        state = cls(n_received, next_frame, n_windows, n_values, bool(settled), shift, level, *arrays)
        state.check()
        return state

    def check(self) -> None:
        """Refuse an inconsistent state.

        Raises:
            InvalidRequestError: names the inconsistency.
        """
        seen = self.context_start // SAMPLES_PER_VALUE, self.n_received // SAMPLES_PER_VALUE
        for what, fits in (
            (f"at most {MAX_VOCALS_SAMPLES} samples, got {self.n_received}", self.n_received <= MAX_VOCALS_SAMPLES),
            ("its next frame among those that came", self.next_frame * SVC_HOP <= self.n_received),
            ("vocals from the context on", len(self.audio) == self.n_received - self.context_start),
            ("the end of the last window", len(self.tail) == (_TAIL if self.n_windows else 0)),
            ("a next frame behind its windows", bool(self.n_windows) == bool(self.next_frame)),
            (
                "as many pitches as its samples have",
                seen[0] <= self.n_values <= seen[1] and len(self.voiced) <= self.n_values,
            ),
            ("pitches in Hz", bool(((self.voiced > VOICED_ABOVE_HZ) & (self.voiced <= SPEECH_RATE_HZ / 2)).all())),
            ("as many levels as pitches", len(self.levels) == len(self.voiced)),
            ("levels in dBFS", float(np.abs([self.level_dbfs, *self.levels]).max()) <= _MOST_LEVEL),
            (f"a shift of at most {_MOST_SHIFT:g} semitones, got {self.shift:g}", abs(self.shift) <= _MOST_SHIFT),
            ("samples of about -1 to 1", float(np.abs([*self.tail, *self.audio]).max(initial=0)) <= MAX_LEVEL),
        ):
            if not fits:
                raise InvalidRequestError(f"state: expected {what}")


def _digits(number: int) -> tuple[int, int]:
    return number // _BASE, number % _BASE


class LiveConverter:
    """One live conversion. A push that fails or is cancelled does not change the state."""

    def __init__(
        self,
        stage: ConvertStage,
        voice: VoiceFeatures,
        settings: ConvertSettings,
    ) -> None:
        self._stage, self._voice, self._settings = stage, voice, settings
        self._state, self._ended = LiveState(), False

    @classmethod
    def restore(
        cls,
        stage: ConvertStage,
        voice: VoiceFeatures,
        settings: ConvertSettings,
        state: NDArray[Any],
    ) -> LiveConverter:
        """Continue from `state()`, with the same voice and settings.

        Raises:
            InvalidRequestError: the vector is damaged, or belongs to another voice or other settings.
        """
        converter = cls(stage, voice, settings)
        converter._state = LiveState.unpack(state, converter._owner())
        return converter

    def state(self) -> Floats:
        """The state for the next request, float32 [S]: up to 12 s of vocals, and the pitch of all vocals."""
        return self._state.pack(self._owner())

    def push(self, vocals44: Floats, *, more: bool) -> list[Floats]:
        """Convert vocals that begin where the last ones ended.

        Args:
            vocals44: float32 [N], mono at 44.1 kHz; may be empty.
            more: other vocals follow.

        Returns:
            The finished samples in order, float32 [M] each; the list may be empty. All requests together return a
            multiple of 512 samples, up to 511 fewer than they took.

        Raises:
            InvalidRequestError: the vocals have the wrong shape or dtype, are not finite, are too long in all, or end
                before the first frame.
            RequestCancelledError: the job was cancelled.
            EngineError: a network failed or returned what its contract forbids.
            ValueError: the vocals have already ended.
        """
        if self._ended:
            raise ValueError("vocals: expected none after the last ones")
        before = self._state
        check_vocals(vocals44, before=before.n_received)
        state = replace(
            before, audio=np.concatenate([before.audio, vocals44]), n_received=before.n_received + len(vocals44)
        )
        end = self._end(state, more)
        pieces: list[Floats] = []
        if end:
            state, pieces = self._converted(state, end, more)
        self._state, self._ended = state, not more
        return pieces

    def report(self) -> dict[str, Any]:
        """The report of an exact conversion, over the vocals so far."""
        state, settings = self._state, self._settings
        sung = state.heard
        wanted = settings.automatic_shift(sung, self._voice.f0)
        share = len(sung) / max(1, state.n_values)
        auto = (state.shift, wanted if state.n_windows else 0.0)
        return make_report("live", state.n_windows, sung, auto, self._voice, settings, share)

    # -------------------------------------------------------------------------------------------------------- inside

    def _owner(self) -> tuple[int, ...]:
        digest = hashlib.sha256(f"{self._voice.sha256}/{self._settings!r}".encode()).digest()
        return tuple(int.from_bytes(digest[at : at + 2], "big") for at in range(0, 8, 2))

    def _end(self, state: LiveState, more: bool) -> int:
        """The frame up to which the vocals are converted now; 0 if there are too few."""
        n_frames = state.n_received // SVC_HOP
        if not more:
            if not n_frames:
                raise InvalidRequestError(f"vocals: expected at least {SVC_HOP} samples in all, got {state.n_received}")
            return n_frames
        n_new = n_frames - LOOKAHEAD_FRAMES - state.next_frame
        if n_new < LEAST_FRAMES:
            return 0
        last = self._stage.plan(n_new, self._voice)[-1]
        short = last.start > 0 and last.end - last.start < LEAST_FRAMES  # it waits for more frames
        return state.next_frame + (last.start + OVERLAP_FRAMES if short else n_new)

    def _converted(self, state: LiveState, end: int, more: bool) -> tuple[LiveState, list[Floats]]:
        """Convert frames [next_frame, end)."""
        stage, settings = self._stage, self._settings
        source = stage.analyse(state.audio, state.level_dbfs)
        state = self._counted(state, source, end if more else None)
        moved = shifted(source.f0, state.shift + settings.pitch_shift)
        cond = stage.condition(source.content, moved, source.n_frames)
        first = state.context_start // SVC_HOP
        joiner, pieces, tail = WindowJoiner(), list[Floats](), state.tail
        if len(tail):
            joiner.add(tail, last=False)  # the cross-fade needs only the window's end
        new = cond[state.next_frame - first : end - first]
        waves = stage.waves(new, self._voice, settings, first=state.n_windows)
        for window, wave in waves:
            pieces.append(joiner.add(wave, last=window.last and not more))
            tail = wave[-_TAIL:].copy()
        done = replace(
            state, next_frame=max(0, end - OVERLAP_FRAMES), n_windows=state.n_windows + len(pieces), tail=tail,
            shift=float(np.float32(state.shift)),  # as it is packed
        )  # fmt: skip
        return replace(done, audio=state.audio[done.context_start - state.context_start :].copy()), pieces

    def _counted(self, state: LiveState, source: SourceFeatures, end: int | None) -> LiveState:
        """Add pitches up to frame `end` (None: all) to the statistics, and update the shift."""
        first = state.context_start // SAMPLES_PER_VALUE
        upto = first + source.f0.size if end is None else end * SVC_HOP // SAMPLES_PER_VALUE
        part = slice(state.n_values - first, upto - first)
        held = state.shift if len(state.voiced) else None
        new, levels = source.f0[part], source.levels[part]
        voiced = new > VOICED_ABOVE_HZ
        state = replace(
            state, n_values=upto, level_dbfs=source.level_dbfs, voiced=np.concatenate([state.voiced, new[voiced]]),
            levels=np.concatenate([state.levels, levels[voiced]]),
        )  # fmt: skip
        sung = state.heard
        shift = state.shift if state.settled else self._settings.automatic_shift(sung, self._voice.f0, held=held)
        return replace(state, shift=shift, settled=state.settled or len(sung) >= SETTLED_VALUES)
