"""A tail-biting convolutional code of rate 1/4 and constraint length 9, decoded softly.

A payload with a checksum would spend bits on telling whether it was read correctly. The score of a detection does that
without bits: it is the correlation with all that the decoded payload would have sent.

Source: J. Proakis, Digital Communications (table of codes: 463, 535, 733, 745 octal, free distance 24); R. Shao et al.,
Two decoding algorithms for tailbiting codes, 2003 (circular Viterbi).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.watermark.layout import PAYLOAD_BITS

GENERATORS = (0o463, 0o535, 0o733, 0o745)
MEMORY = 8
N_STATES = 1 << MEMORY
TURNS = 3
"""Times that the decoder goes around the circle. The second turn is read: it knows what comes before and after."""


def _outputs() -> NDArray[np.float64]:
    """Coded bits as +1 and -1, [register, 4]; a register is the new bit followed by the `MEMORY` bits before it."""
    registers = np.arange(2 * N_STATES)
    parity = np.array([[bin(int(r) & g).count("1") & 1 for g in GENERATORS] for r in registers])
    signs: NDArray[np.float64] = 2.0 * parity - 1.0
    return signs


_OUTPUTS = _outputs()
_NEXT = np.arange(N_STATES)
"""A state holds the last `MEMORY` bits, the newest highest."""
_BITS = _NEXT >> (MEMORY - 1)
_BEFORE = np.stack([(_NEXT << 1) & (N_STATES - 1), ((_NEXT << 1) & (N_STATES - 1)) | 1])
"""The two states from which each state is reached, [2, state]."""
_BRANCHES = np.ascontiguousarray(_OUTPUTS[((_BITS << MEMORY)[None] | _BEFORE).ravel()].T)
"""What is sent on the way, [4, 2 * state]."""


def encode(payload: int) -> NDArray[np.float64]:
    """Code a payload of `PAYLOAD_BITS` bits: [CODED_BITS] of +1 and -1."""
    bits = [payload >> index & 1 for index in range(PAYLOAD_BITS)]
    sent = []
    for at, bit in enumerate(bits):
        register = bit << MEMORY
        for back in range(1, MEMORY + 1):
            register |= bits[at - back] << (MEMORY - back)
        sent.append(_OUTPUTS[register])
    coded: NDArray[np.float64] = np.concatenate(sent)
    return coded


def decode(soft: NDArray[np.float64]) -> list[int]:
    """Find the payloads whose codes correlate best with each row of `soft`, [K, CODED_BITS]; the sign is the bit."""
    steps = soft.reshape(len(soft), PAYLOAD_BITS, len(GENERATORS))
    rows = np.arange(len(soft))
    metric = np.zeros((len(soft), N_STATES))
    choices = np.empty((TURNS * PAYLOAD_BITS, len(soft), N_STATES), np.int8)
    for step in range(TURNS * PAYLOAD_BITS):
        gains = steps[:, step % PAYLOAD_BITS] @ _BRANCHES
        first, second = metric[:, _BEFORE[0]] + gains[:, :N_STATES], metric[:, _BEFORE[1]] + gains[:, N_STATES:]
        choices[step] = second > first
        metric = np.maximum(first, second)
    state, payloads = metric.argmax(axis=1), [0] * len(soft)
    for step in range(TURNS * PAYLOAD_BITS - 1, PAYLOAD_BITS - 1, -1):
        if step < 2 * PAYLOAD_BITS:  # the turn in the middle: what comes before and after is known
            payloads = [
                each | int(_BITS[at]) << (step - PAYLOAD_BITS) for each, at in zip(payloads, state, strict=True)
            ]
        state = _BEFORE[choices[step, rows, state], state]
    return payloads
