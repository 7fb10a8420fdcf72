from __future__ import annotations

from heartvoice.contracts.network_names import NETWORKS, noise


def test_noise_is_what_random_networks_make() -> None:
    real = dict.fromkeys(map(str, NETWORKS), "official")
    assert noise(real) == ""
    assert noise(real | {"lm": "random seed=0"}) == "songs"
    assert noise(real | {"vocoder": "random seed=3"}) == "voices"
    assert noise(dict.fromkeys(NETWORKS, "random seed=0")) == "songs and voices"
    assert noise(real | {"speaker": "random seed=0"}) == ""
