from pathlib import Path

import numpy as np
import pytest

from heartvoice.errors import InvalidRequestError
from heartvoice.watermark import make_key, payload_of, read_key
from heartvoice.watermark.layout import CODED_BITS, N_CHIPS, N_SYNC_CHIPS, SYNC, layout_of


def test_a_new_key_is_read_back_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "watermark.key"
    key = make_key(path)
    assert read_key(path) == key
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "watermark.key"
    key = make_key(path)
    with pytest.raises(FileExistsError, match=r"watermark\.key"):
        make_key(path)
    assert read_key(path) == key


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "A" * 64, "a" * 63, "a" * 66, "\udcff" * 64])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "watermark.key"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(InvalidRequestError, match="64 hexadecimal digits"):
        read_key(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "watermark.key"
    make_key(path)
    path.chmod(mode)
    with pytest.raises(InvalidRequestError, match="chmod 600"):
        read_key(path)


def test_payloads_depend_on_key_and_on_every_field() -> None:
    payload = payload_of(b"key", b"caller", b"request")
    assert 0 <= payload < 1 << 32
    assert payload == payload_of(b"key", b"caller", b"request")
    others = [
        payload_of(b"other", b"caller", b"request"), payload_of(b"key", b"callerr", b"equest"),
        payload_of(b"key", b"caller"), payload_of(b"key", b"caller", b"request", b""),
    ]  # fmt: skip
    assert payload not in others


def test_a_pattern_is_balanced_and_belongs_to_its_key() -> None:
    first, second = layout_of(b"first" * 8), layout_of(b"second" * 8)
    assert np.count_nonzero(first.bit == SYNC) == N_SYNC_CHIPS
    carried = np.bincount(first.bit[first.bit != SYNC], minlength=CODED_BITS)
    assert set(carried) == {(N_CHIPS - N_SYNC_CHIPS) // CODED_BITS}
    for one, other in ((first.sign, second.sign), (first.sign, first.bit % 2 * 2 - 1)):
        assert abs(np.mean(one * other)) < 5 / np.sqrt(N_CHIPS)


def test_the_pattern_of_a_key_never_changes() -> None:
    layout = layout_of(bytes(range(32)))  # files that were marked once must be found by every later version
    assert layout.sign[0, :8].tolist() == [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0]
    assert layout.bit[0, :8].tolist() == [45, 97, -1, 16, -1, -1, -1, -1]
