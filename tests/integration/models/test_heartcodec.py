"""HeartCodec's names, joins, and the faults and quirks of its reference."""

from __future__ import annotations

import numpy as np
import torch

from tests.unit.models.test_heartcodec import PLAN, TINY, _inference, codes_of, sing, starting, tiny  # noqa: F401


def test_continuous_join_equals_one_decoding_of_all_latents() -> None:
    model = tiny()
    latents = list(model.window_latents(codes_of(200), starting, plan=PLAN, steps=2))
    fresh = [window[:, PLAN.context(index) :] for index, window in enumerate(latents)]
    whole = model.decode_latents(torch.cat(fresh, dim=1))
    pieces = list(model.decode_continuously(fresh))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-6)
    song = sing(200, join="continuous")
    np.testing.assert_allclose(song, whole[:, : song.shape[1]], atol=1e-6)
    assert [piece.shape[1] for piece in pieces[:1]] == [(PLAN.latent_window - 2) * TINY.latent_hop]
