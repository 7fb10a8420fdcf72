import numpy as np
import pytest

from heartvoice.watermark.error_correction import decode, encode
from heartvoice.watermark.layout import CODED_BITS, PAYLOAD_BITS

PAYLOADS = (0, 1, 0x80000000, 0xFFFFFFFF, 0xDEADBEEF, 0x12345678)


def test_decode_reverses_encode() -> None:
    assert decode(np.stack([encode(payload) for payload in PAYLOADS])) == list(PAYLOADS)


def test_any_payload_survives_eleven_wrong_bits() -> None:
    rng = np.random.default_rng(1)
    payloads = [int(value) for value in rng.integers(1 << PAYLOAD_BITS, size=40)]
    received = np.stack([encode(payload) for payload in payloads])
    for row in received:
        row[rng.choice(CODED_BITS, 11, replace=False)] *= -1  # the code's distance is 24
    assert decode(received) == payloads


def test_payloads_survive_noise_at_three_decibels_a_bit() -> None:
    rng = np.random.default_rng(2)
    payloads = [int(value) for value in rng.integers(1 << PAYLOAD_BITS, size=50)]
    sent = np.stack([encode(payload) for payload in payloads])  # a quarter of a bit's energy of 4, noise of variance 1
    assert decode(sent + rng.standard_normal(sent.shape)) == payloads


@pytest.mark.parametrize("bit", range(0, PAYLOAD_BITS, 5))
def test_payloads_of_one_bit_apart_differ_in_many_coded_bits(bit: int) -> None:
    assert np.count_nonzero(encode(0x5A5A1234) != encode(0x5A5A1234 ^ 1 << bit)) >= 24
