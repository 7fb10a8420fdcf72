"""`make cover`'s way through the real server: the example recording, against what is known of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from heartvoice.audio.dsp import resample
from heartvoice.client import Client
from heartvoice.client.messages import Song
from heartvoice.config.presets import PRESETS
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.models import HTDEMUCS, SPLEETER
from heartvoice.errors import ExportError
from heartvoice.evaluation.measures import si_sdr_db
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import random_weights
from heartvoice.loadtest.signals import score
from heartvoice.runtime.repository import Repository
from heartvoice.stages.calibration import CALIBRATIONS
from heartvoice.stages.f0 import F0Stage, median_hz
from tests.support import f0_engines
from tests.support.raw import OF_CONVERSION, OF_COVERS
from tests.support.servers import running_server
from tests.support.voice_bank.examples import RECORDING, SONG_S, VOICE, stems

CONSENT = "A synthetic voice: nobody's"
Samples = np.ndarray
pytestmark = pytest.mark.timeout(600)  # the first run on a machine fetches FluidR3, 48 MB
LEAST_SI_SDR_DB, LEAST_RPA, LEAST_SAME_VOICE = 8.0, 0.7, 0.8
"""Measured: see benchmarks/DIARY.md."""


@pytest.fixture(scope="module")
def truth() -> tuple[Samples, Samples]:
    """Vocals and instrumental of the recording."""
    try:
        return stems()
    except ExportError as error:
        pytest.skip(f"needs FluidR3's instruments: {error}")


@pytest.fixture(scope="module")
def client(repository: Repository, truth: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server of `make cover`'s repository: the shared one's separator is quick and random, this one's is Spleeter."""
    root = Path(shutil.copytree(repository.root, tmp_path_factory.mktemp("spleeter") / "tiny"))
    export_repository(random_weights(PRESETS["tiny"], 0), root)  # all but the separator are up to date
    models = (*(set(OF_COVERS) - {HTDEMUCS.name}), SPLEETER.name, *OF_CONVERSION)
    with running_server(root, models=models) as server, Client(server.url) as made:
        yield made


@pytest.fixture(scope="module")
def cover(client: Client) -> Song:
    return client.cover(RECORDING, VOICE, consent=CONSENT, stems=True, seed=7)


@pytest.fixture(scope="module")
def separated(client: Client) -> dict[str, Samples]:
    return dict(client.separate(RECORDING))


def contour(vocals: Samples) -> Samples:
    stage = F0Stage(f0_engines.OneNetwork(f0_engines.swift_engine()), f0_engines.SWIFT)
    return stage.track(resample(vocals.mean(axis=0), STEM_RATE_HZ, SPEECH_RATE_HZ))


def test_the_cover_says_what_is_real_and_what_is_random(cover: Song) -> None:
    networks = cover.report.raw["networks"]
    random = {name for name, weights in networks.items() if weights.startswith("random")}
    assert random == {"svc_cfm", "svc_content", "svc_regulator", "svc_style", "vocoder"}
    assert {"separator", "f0", "speaker"} <= set(networks)


def test_the_singer_is_found_and_taken_out_of_the_mix(
    cover: Song, separated: dict[str, Samples], truth: tuple[Samples, Samples]
) -> None:
    assert cover.report.raw["converted"] is True
    vocals, instrumental = truth
    for name, stem in (("vocals", vocals), ("instrumental", instrumental)):
        before, after = si_sdr_db(vocals + instrumental, stem), si_sdr_db(separated[name], stem)
        assert before is not None
        assert after is not None
        assert before == pytest.approx(0.0, abs=1.5)  # as loud as each other
        assert after > LEAST_SI_SDR_DB
    assert cover.stems is not None
    kept = si_sdr_db(resample(cover.stems["instrumental"], SAMPLE_RATE_HZ, STEM_RATE_HZ), instrumental)
    assert kept is not None
    assert kept > LEAST_SI_SDR_DB  # what is heard behind the new voice


def test_the_pitch_of_the_old_vocals_is_the_singers(
    cover: Song, separated: dict[str, Samples], truth: tuple[Samples, Samples]
) -> None:
    sung = contour(truth[0])
    result = score(contour(separated["vocals"]), sung)
    assert result.rpa > LEAST_RPA
    assert result.median_cents < 10
    assert result.gross < 0.05
    told = cover.report.raw["f0"]["source_median_hz"]
    assert abs(12 * np.log2(told / median_hz(sung))) < 0.5


def test_the_old_vocals_are_one_person_and_the_voice_another(
    client: Client, cover: Song, separated: dict[str, Samples], truth: tuple[Samples, Samples]
) -> None:
    same = CALIBRATIONS["resemblyzer"].same_voice(SONG_S)
    sung, found = (client.embed((vocals, STEM_RATE_HZ)) for vocals in (truth[0], separated["vocals"]))
    assert float(sung.vector @ found.vector) > LEAST_SAME_VOICE
    similarity = cover.report.raw["similarity"]
    assert similarity["encoder"] == "resemblyzer"
    assert similarity["before"] == pytest.approx(float(found.vector @ client.embed(VOICE).vector), abs=0.05)
    assert similarity["before"] < same.minimum
