"""A song's codes, sung again in a voice: the song of that voice, without the language model."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.server.server import EmbeddedServer
from tests.fakes.networks import text
from tests.integration.test_voices import LIVE, SECONDS, STEPS, Arrays, payload, streamed, voice


@pytest.mark.parametrize("mode", [{}, LIVE], ids=["exact", "live"])
def test_codes_are_voiced_again(server: EmbeddedServer, mode: Arrays) -> None:
    length = np.array([SECONDS], np.float32)
    written = {"lyrics": text("La la la"), "duration_s": length, "min_duration_s": length}
    voiced = {"codec_window": np.array([93]), **voice(), **STEPS, **mode}
    first = streamed(server, "song", {**written, **voiced, "return_codes": np.array([True])})
    again = streamed(server, "song", {"codes": payload(first, "CODES"), **voiced})
    assert np.array_equal(payload(again, "AUDIO"), payload(first, "AUDIO"))
