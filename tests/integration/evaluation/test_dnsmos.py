"""DNSMOS: windows, and the published package's own numbers."""

from __future__ import annotations

import pytest

from heartvoice.errors import ExportError
from heartvoice.evaluation.dnsmos import Dnsmos, Opinion
from heartvoice.export import wheel_files
from heartvoice.runtime.engines import OnnxEngine
from tests.support.synthetic_voice import synthetic_voice

PUBLISHED = {
    48_000: Opinion(3.088573982704372, 2.74316410788, 2.1516995225105497),
    144_160: Opinion(2.9073033368004078, 2.309273446485565, 1.8912085145641573),
}


"""What speechmos 0.0.1.1 says of `synthetic_voice` of so many samples."""


@pytest.mark.parametrize("n_samples", PUBLISHED)
def test_opinions_are_the_published_packages(n_samples: int) -> None:
    try:
        engine = OnnxEngine(wheel_files.member("dnsmos"), threads=1)
    except ExportError as error:
        pytest.skip(f"needs the wheel of speechmos: {error}")
    found, expected = Dnsmos(engine).rate(synthetic_voice(n_samples)), PUBLISHED[n_samples]
    assert found.signal == pytest.approx(expected.signal, abs=1e-4)
    assert found.background == pytest.approx(expected.background, abs=1e-4)
    assert found.overall == pytest.approx(expected.overall, abs=1e-4)
