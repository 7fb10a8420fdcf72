"""The converter's mel spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.stages.svc.mel import log_mel, mel_filters, n_mel_frames
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params

FOLDERS = folder_params("seed_vc/mel_frontend")


@pytest.mark.parametrize("folder", FOLDERS)
def test_mel_is_the_references(folder: GoldenFolder) -> None:
    io, n_mels = folder.io, folder.config["num_mels"]
    names = [name.removesuffix(".wave") for name in io if name.endswith(".wave")]
    assert names
    for name in names:
        assert_close(log_mel(io[f"{name}.wave"][0], n_mels).T[None], io[f"{name}.mel"], 1e-3)


@pytest.mark.parametrize("folder", FOLDERS)
def test_filters_and_frame_counts_are_the_references(folder: GoldenFolder) -> None:
    rows = folder.io["mel_filterbank_row_sums"]
    np.testing.assert_allclose(mel_filters(len(rows)).sum(axis=1), rows, rtol=1e-5)
    for n_samples, count in folder.config["frame_counts"].items():
        assert n_mel_frames(int(n_samples)) == count


def test_quirk_7_a_frame_for_every_full_hop_and_nothing_more() -> None:
    for n_samples in (769, 1023, 1024, 51_199, 51_200):
        assert len(log_mel(np.zeros(n_samples, np.float32))) == n_mel_frames(n_samples) == n_samples // 512


def test_silence_is_the_floor() -> None:
    assert np.allclose(log_mel(np.zeros(2048, np.float32)), np.log(1e-5))


def test_too_few_samples_to_reflect_are_refused() -> None:
    assert log_mel(np.zeros(769, np.float32)).shape == (1, 128)
    with pytest.raises(InvalidRequestError, match=r"at least 769 samples at 44\.1 kHz, got 768"):
        log_mel(np.zeros(768, np.float32))
