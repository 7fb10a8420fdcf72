"""Separations and embeddings with both clients, over a real gRPC connection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from heartvoice import __version__
from heartvoice.audio.encode import write_audio
from heartvoice.contracts.provenance import provenance
from tests.fakes.server import (
    SOURCES,
    FakeServer,
)
from tests.support.callers import Caller, listing
from tests.unit.client.test_stems import SONG, separate


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg"])
def test_stems_save_themselves_with_their_origin(tmp_path: Path, server: FakeServer, caller: Caller, name: str) -> None:
    tag = provenance(3, random_weights=False)
    source = write_audio(tmp_path / "song.flac", np.zeros((2, 48_000)), tag).path
    for recording, origin in ((source, f"; from: {tag}"), (SONG, "")):
        made = separate(server, caller, recording=recording).save(tmp_path / "stems", name)
        assert list(made) == list(SOURCES)
        assert listing(tmp_path / "stems") == sorted(f"{source}.{name}" for source in SOURCES)
        for source_name, file in made.items():
            with soundfile.SoundFile(file.path) as written:
                assert (written.samplerate, written.frames, written.channels) == (44_100, 66_150, 2)
                assert written.comment == file.comment
            wanted = f"separated by heartvoice {__version__}; source {source_name}; random weights{origin}"
            assert file.comment == wanted
