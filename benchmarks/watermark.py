"""Is the watermark found after codecs and cuts, never where it is not, and without being heard?

    python -m benchmarks.watermark [--pieces 200] [--recordings DIR] [--only PART ...] [--keys 150]

The pieces are procedural songs of the demo world that nothing was tuned on, rendered exactly, and the recordings in DIR
(what open games carry: `apt-get download wesnoth-1.16-music`, `dpkg-deb -x`). Of each, the first 90 s. The parts:

* found: detection and payload after WAV, FLAC, MP3 128, OGG, 44.1 kHz, a cut of 30 s, MP3 64, Opus 48 and AAC 64 (only
  where PyAV can be imported, which is no dependency of the project); the signal-to-mark ratio and the cost
* speed: the same at five speeds
* false: alarms on unmarked pieces with wrong keys; every tenth key also at other speeds
* quality: DNSMOS and loudness before and after

Pieces under 30 s are reported by themselves and have no bar. A quick look: `--pieces 10 --keys 20`.
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.audio.loudness import Loudness
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ
from heartvoice.judges.opening import open_judges
from heartvoice.loadtest.harness import RESULTS, Run
from heartvoice.watermark import Evidence, detect, mark, payload_of
from train.demo.renderer import Renderer
from train.demo.songs import held_out_song

Samples = NDArray[np.float32]
KEY = b"the key of a benchmark, 32 bytes"
LONGEST_S = 90
LONG_S = 30
"""Pieces of this length and more have bars."""
SPEEDS = (0.96, 0.985, 1.005, 1.02, 1.04)
ROBUST = ("wav", "flac", "mp3 128", "ogg", "44.1 kHz", "cut 30 s")
"""Attacks after which a mark must be found in at least `MIN_FOUND`."""
HARD = ("mp3 64", "opus 48", "aac 64")
"""Attacks after which the payload must be read in at least `MIN_READ`."""
MIN_FOUND, MIN_READ = 0.99, 0.95
MEDIAN_SNR_DB, LEAST_SNR_DB = 25.0, 21.0
MAX_FALSE_RATE = 1e-4


def _file(audio: Samples, **options: Any) -> Samples:
    buffer = io.BytesIO()
    sf.write(buffer, audio.T, SAMPLE_RATE_HZ, **options)
    return np.ascontiguousarray(sf.read(io.BytesIO(buffer.getvalue()), dtype="float32")[0].T)


def _mp3(audio: Samples, kbit_s: int) -> Samples:
    import lameenc

    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_bit_rate(kbit_s)
    encoder.set_in_sample_rate(SAMPLE_RATE_HZ)
    encoder.set_out_sample_rate(SAMPLE_RATE_HZ)
    encoder.set_channels(2)
    coded = encoder.encode((np.clip(audio.T, -1, 1) * 32767).astype("<i2").tobytes()) + encoder.flush()
    return np.ascontiguousarray(sf.read(io.BytesIO(bytes(coded)), dtype="float32")[0].T)


def _aac(av: Any, audio: Samples, kbit_s: int) -> Samples:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ)
        stream.bit_rate, stream.layout = 1000 * kbit_s, "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout="stereo")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def _cut(audio: Samples) -> Samples:
    length = LONG_S * SAMPLE_RATE_HZ
    first = max(0, (audio.shape[1] - length) // 3 + 137)
    return audio[:, first : first + length]


def attacks() -> dict[str, Callable[[Samples], tuple[Samples, int]]]:
    """What is done to a marked piece: audio and its rate afterwards."""
    same: dict[str, Callable[[Samples], Samples]] = {
        "wav": partial(_file, format="WAV", subtype="PCM_16"), "flac": partial(_file, format="FLAC"),
        "mp3 128": partial(_mp3, kbit_s=128), "cut 30 s": _cut, "mp3 64": partial(_mp3, kbit_s=64),
        "ogg": partial(_file, format="OGG", subtype="VORBIS"),
        # libsndfile maps 0 to 1 onto 256 to 6 kbit/s a channel
        "opus 48": partial(_file, format="OGG", subtype="OPUS", compression_level=(256 - 24) / 250),
    }  # fmt: skip
    try:
        same["aac 64"] = partial(_aac, importlib.import_module("av"), kbit_s=64)
    except ImportError:
        print("aac 64 is left out: PyAV cannot be imported")
    made = {name: (lambda audio, attack=attack: (attack(audio), SAMPLE_RATE_HZ)) for name, attack in same.items()}
    return {**made, "44.1 kHz": lambda audio: (resample(audio, SAMPLE_RATE_HZ, 44_100), 44_100)}


def pieces(count: int, recordings: Path | None) -> Iterator[tuple[str, Samples]]:
    """`count` pieces, float32 [2, N] at 48 kHz: all recordings, then songs of the demo world."""
    files = sorted(path for path in recordings.rglob("*") if path.suffix in {".ogg", ".flac"}) if recordings else []
    for path in files[:count]:
        audio, rate_hz = sf.read(path, dtype="float32", always_2d=True, frames=LONGEST_S * 48_000)
        stereo = resample(np.ascontiguousarray(audio.T[[0, -1]]), rate_hz, SAMPLE_RATE_HZ)
        yield path.name, stereo[:, : LONGEST_S * SAMPLE_RATE_HZ]
    renderer = Renderer()
    for number in range(count - len(files)):
        yield f"song {number}", renderer.mix(held_out_song(number).codes)[:, : LONGEST_S * SAMPLE_RATE_HZ]


class Bench:
    """The run and its pieces."""

    def __init__(self, run: Run, options: argparse.Namespace) -> None:
        self.run, self.options = run, options
        self.failed: list[str] = []

    def _pieces(self) -> Iterator[tuple[str, Samples, Samples, int]]:
        for name, audio in pieces(self.options.pieces, self.options.recordings):
            payload = payload_of(KEY, name.encode())
            started = time.process_time()
            marked = mark(audio, KEY, payload)
            seconds = audio.shape[1] / SAMPLE_RATE_HZ
            self.cost = (time.process_time() - started) / seconds
            yield name, audio, marked, payload

    def measure_found(self) -> None:
        """Detection and payload after each attack, and the strength of the mark."""
        rows: list[dict[str, Any]] = []
        todo = attacks()
        for name, audio, marked, payload in self._pieces():
            snr_db = 10 * np.log10(np.square(audio).sum() / np.square(marked - audio).sum())
            row: dict[str, Any] = {"seconds": audio.shape[1] / SAMPLE_RATE_HZ, "snr_db": snr_db, "rtf": self.cost}
            for attack, apply in todo.items():
                result = detect(*apply(marked), KEY)
                row |= {f"{attack} score": result.score, f"{attack} found": result.found}
                row[f"{attack} read"] = result.payload == payload
            rows.append(self.run.add("found", name, **row))
            self.run.save()
        long = [row for row in rows if row["seconds"] >= LONG_S]
        for group, members in (("30 s and more", long), ("shorter", [row for row in rows if row not in long])):
            for attack in todo if members else ():
                found, read = (
                    float(np.mean([row[f"{attack} {what}"] for row in members])) for what in ("found", "read")
                )
                least = min(row[f"{attack} score"] for row in members)
                self.run.add(f"share {group}", attack, n=len(members), found=found, read=read, least_score=least)
                if group != "shorter":
                    self._bar(f"{attack} found", attack not in ROBUST or found >= MIN_FOUND)
                    self._bar(f"{attack} read", attack not in HARD or read >= MIN_READ)
        strengths = [row["snr_db"] for row in rows]
        self.run.add("strength", "snr_db", median=float(np.median(strengths)), least=min(strengths))
        self._bar("SNR", np.median(strengths) >= MEDIAN_SNR_DB and min(strengths) >= LEAST_SNR_DB)
        self.run.add("cost", "mark, CPU s per second", median=float(np.median([row["rtf"] for row in rows])))

    def measure_speed(self) -> None:
        """Detection at other speeds."""
        for name, _, marked, payload in self._pieces():
            facts: dict[str, Any] = {}
            for speed in SPEEDS:
                started = time.process_time()
                result = detect(resample(marked, SAMPLE_RATE_HZ, round(SAMPLE_RATE_HZ / speed)), SAMPLE_RATE_HZ, KEY)
                facts |= {f"{speed} read": result.payload == payload, f"{speed} score": result.score}
                facts["detect_cpu_s"] = time.process_time() - started
            self.run.add("speed", name, **facts)
            self.run.save()

    def measure_false(self) -> None:
        """Alarms on unmarked pieces with wrong keys."""
        n_trials = n_alarms = 0
        highest = 0.0
        for name, audio in pieces(self.options.pieces, self.options.recordings):
            scores = []
            evidence = Evidence(audio, SAMPLE_RATE_HZ)
            for index in range(self.options.keys):
                result = evidence.detect(b"wrong key %d" % index, speeds=index % 10 == 0)
                n_alarms += result.found
                scores.append(result.score)
            n_trials += len(scores)
            highest = max(highest, *scores)
            self.run.add("false alarms", name, highest=max(scores), mean=float(np.mean(scores)))
            self.run.save()
        from scipy.stats import beta

        bound = float(beta.ppf(0.95, n_alarms + 1, n_trials - n_alarms))
        self.run.add("false alarms", "all", trials=n_trials, alarms=n_alarms, upper_95=bound, highest=highest)
        self._bar("false alarms", n_alarms == 0 if n_trials < 3 / MAX_FALSE_RATE else bound <= MAX_FALSE_RATE)

    def measure_quality(self) -> None:
        """DNSMOS and loudness before and after."""
        judge = open_judges().dnsmos
        assert judge is not None, "DNSMOS cannot be had"
        for name, audio, marked, _ in self._pieces():
            before, after = (
                judge.rate(resample(each.mean(axis=0), SAMPLE_RATE_HZ, SPEECH_RATE_HZ)).overall
                for each in (audio, marked)
            )
            louder = _lufs(marked) - _lufs(audio)
            self.run.add("quality", name, dnsmos_before=before, dnsmos_after=after, louder_db=louder)
            self.run.save()
        rows = [row for row in self.run.rows if row["case"] == "quality"]
        moved = [row["dnsmos_after"] - row["dnsmos_before"] for row in rows]
        louder_most = max(abs(row["louder_db"]) for row in rows)
        self.run.add("quality", "all", dnsmos_mean=float(np.mean(moved)), dnsmos_most=max(map(abs, moved)),
                     louder_db_most=louder_most)  # fmt: skip

    def _bar(self, name: str, held: bool | np.bool_) -> None:
        if not held:
            self.failed.append(name)


def _lufs(audio: Samples) -> float:
    loudness = Loudness(2, SAMPLE_RATE_HZ)
    for at in range(0, audio.shape[1] - loudness.hop + 1, loudness.hop):
        loudness.push(audio[:, at : at + loudness.hop])
    return loudness.programme_lufs()


MEASURES: dict[str, Callable[[Bench], None]] = {
    "found": Bench.measure_found, "speed": Bench.measure_speed, "false": Bench.measure_false,
    "quality": Bench.measure_quality,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status: 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pieces", type=int, default=200)
    parser.add_argument("--keys", type=int, default=150, help="wrong keys for each piece")
    parser.add_argument("--recordings", type=Path, help="a folder with OGG and FLAC files")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    options = parser.parse_args(arguments)
    run = Run("watermark", "none", "fp64", 1, results=RESULTS, about={"pieces": options.pieces, "keys": options.keys})
    bench = Bench(run, options)
    for part in options.only:
        MEASURES[part](bench)
    run.about["missed"] = bench.failed
    run.finish(json_line=False)
    return int(bool(bench.failed))


if __name__ == "__main__":
    sys.exit(main())
