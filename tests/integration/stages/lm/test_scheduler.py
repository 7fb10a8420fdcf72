"""Songs that share an engine: order, limits, cancellation, slow consumers, and codes that depend on none of it."""

from __future__ import annotations

import random
import threading
import time

import numpy as np

from heartvoice.errors import (
    HeartvoiceError,
)
from heartvoice.stages.lm.song_state import SongState
from tests.fakes.networks import BytesTokenizer
from tests.support.lm_songs import PRESET, REQUESTS, codes_alone, graph_engine
from tests.unit.stages.lm.test_scheduler import Start, read, start  # noqa: F401


def test_soak_of_songs_that_come_and_go(start: Start) -> None:  # noqa: F811
    """Threads that submit, read slowly or fast, cancel and run out of time; every complete song is right."""
    engine = graph_engine(n_slots=4)
    scheduler = start(engine, max_waiting=4)
    outcomes: list[str] = []

    def consume(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(12):
            index, patience = dice.randrange(len(REQUESTS)), dice.choice([1, 3, 100, 100])
            wanted = SongState(REQUESTS[index], BytesTokenizer(), PRESET)
            try:
                with scheduler.submit(wanted, timeout_s=dice.choice([None, None, 0.02, 5.0])) as stream:
                    frames = []
                    for frame in stream:
                        frames.append(frame)
                        time.sleep(dice.choice([0, 0, 0.005]))
                        if len(frames) == patience:
                            break
                np.testing.assert_array_equal(np.stack(frames), codes_alone(index)[: len(frames)])
                outcomes.append("complete" if len(frames) == len(codes_alone(index)) else "left")
            except HeartvoiceError as error:
                outcomes.append(error.code)
                time.sleep(0.01)
            except BaseException as error:
                outcomes.append(f"wrong: {error}")
                raise

    for index in range(len(REQUESTS)):
        codes_alone(index)
    threads = [threading.Thread(target=consume, args=(seed,)) for seed in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 120
    assert set(outcomes) <= {"complete", "left", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    assert outcomes.count("complete") > 20
    assert outcomes.count("left") > 5
    last = [scheduler.submit(SongState(REQUESTS[0], BytesTokenizer(), PRESET)) for _ in range(4)]
    for stream in last:  # no slot is stuck
        np.testing.assert_array_equal(read(stream), codes_alone(0))
