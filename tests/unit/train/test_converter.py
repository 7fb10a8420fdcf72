"""The converter's trainings: singers, singing, sources of phase, losses that fall, and files that an export opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.checkpoints.official import CAMPPLUS
from heartvoice.config.presets import DEMO_STYLE, DEMO_SVC
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.export.svc_weights import open_converter
from heartvoice.models.bigvgan import Activation, Bigvgan
from heartvoice.models.load import load_network
from heartvoice.models.seed_vc.whisper import ContentEncoder
from heartvoice.models.speaker import open_campplus
from heartvoice.stages.svc.content import whisper_log_mel
from train.demo.converter import content, conversion, style, vocoder
from train.demo.converter.activations import activated
from train.demo.converter.content import ContentTask, encoded, short_log_mel, sound_places, what_is_sung
from train.demo.converter.conversion import ConversionTask
from train.demo.converter.oscillators import N_NOISE, Oscillators, install, pitches
from train.demo.converter.singers import HELD_OUT, house_singer, random_singer, singer_gender, style_of
from train.demo.converter.singing import FADE, SLOT, Line, fades, line_of, sing
from train.demo.converter.style import StyleTask
from train.demo.converter.vocoder import VocoderTask, shifted_lines
from train.demo.songs import held_out_song, training_song
from train.frame.task import Moment, Task

SIZES = replace(
    DEMO_SVC,
    whisper=replace(DEMO_SVC.whisper, d_model=32, encoder_layers=1, encoder_ffn_dim=48),
    regulator=replace(DEMO_SVC.regulator, channels=32, in_channels=32),
    dit=replace(DEMO_SVC.dit, hidden_dim=48, num_heads=2, depth=3, content_dim=32),
    vocoder=replace(DEMO_SVC.vocoder, upsample_initial_channel=128),
)
"""Smaller networks; the vocoder's first stages still hold all oscillators."""
MOMENT = Moment(0, 10)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short crops, and torch's state left as it was."""
    monkeypatch.setattr(content, "SLOTS", (30, 40))
    monkeypatch.setattr(content, "N_WINDOWS", 2)
    monkeypatch.setattr(style, "SLOTS", (20, 30))
    monkeypatch.setattr(style, "N_SINGERS", 4)
    monkeypatch.setattr(style, "N_CHECKS", 2)
    monkeypatch.setattr(conversion, "SHAPES", ((1.0, 2, 10, 20),))
    monkeypatch.setattr(conversion, "CHECK_SLOTS", (10, 20))
    monkeypatch.setattr(vocoder, "SHAPES", (1, 8))
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def songs() -> list[Line]:
    return [line_of(training_song(0).codes)]


def held_out() -> list[Line]:
    return [line_of(held_out_song(0).codes)]


# ---------------------------------------------------------------------------------------------------- singers, singing


def test_singers_are_theirs_by_number_and_differ_from_each_other() -> None:
    one, again, other = random_singer(HELD_OUT), random_singer(HELD_OUT), random_singer(HELD_OUT + 1)
    assert np.array_equal(one.envelope, again.envelope)
    assert np.linalg.norm(style_of(one) - style_of(other)) > 1
    assert [singer_gender(house_singer(singer)) for singer in range(4)] == ["female", "female", "male", "male"]
    styles = np.stack([style_of(random_singer(number)) for number in range(24)])
    assert np.abs(styles).max() < 8
    assert 0.5 < styles.std() < 1.6


def test_a_line_is_sung_at_its_pitch_by_whoever_sings() -> None:
    sound = int(np.argmin(house_singer(0).noise[0].mean(axis=1)))  # a clear vowel
    line = Line(np.full(20, sound), np.full(20, 200.0))
    for singer in (house_singer(0), random_singer(HELD_OUT)):
        wave = sing(line.at(0.5), singer, np.random.default_rng(0))
        assert wave.shape == (20 * SLOT,)
        spectrum = np.abs(np.fft.rfft(wave[: STEM_RATE_HZ // 2]))
        harmonics = spectrum[50 * np.arange(1, 9)]  # bins are 2 Hz
        assert harmonics.sum() > 3 * spectrum[25 + 50 * np.arange(1, 9)].sum()


def test_what_is_sung_is_that_of_the_slots_with_their_fades() -> None:
    line = Line(np.array([0, 5, 5, 0]), np.array([0.0, 200.0, 200.0, 0.0]))
    wanted = what_is_sung(line, 8)
    assert np.allclose(wanted[4], sound_places()[5])  # 80 ms: the first slot fades out, the second one in
    assert np.allclose(wanted[0], 0)
    assert np.allclose(fades(4, np.array([0.05, 0.1])).sum(axis=1), 1)


def test_songs_move_by_octaves_that_a_voice_reaches() -> None:
    made = shifted_lines([Line(np.array([5]), np.array([200.0])), Line(np.array([5]), np.array([100.0]))])
    assert [float(line.hz[0]) for line in made] == [200.0, 100.0, 100.0, 400.0, 200.0]


# ------------------------------------------------------------------------------------------------------------ networks


def test_the_fused_activation_is_the_vocoders_own() -> None:
    module = Activation(5)
    with torch.no_grad():
        module.act.alpha.normal_()
        module.act.beta.normal_()
    for length in (1, 2, 30):
        x = torch.randn(2, 5, length, requires_grad=True)
        one, other = module(x), activated(module, x)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        slopes = [torch.autograd.grad(each.square().sum(), x)[0] for each in (one, other)]
        torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-3)


def test_log_mel_and_content_need_no_silence_to_be_computed() -> None:
    audio = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    assert np.array_equal(short_log_mel(audio, 60, 80), whisper_log_mel(audio, 80)[:, :120])
    encoder = ContentEncoder(replace(SIZES.whisper, max_source_positions=60))
    mel = torch.randn(1, 80, 120)
    torch.testing.assert_close(encoded(encoder, mel), encoder(mel))


def test_oscillators_turn_at_their_pitches_inside_the_vocoder_too() -> None:
    oscillators = Oscillators()
    noise = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    turns = oscillators.wander(noise, 300 * SVC_HOP)
    assert tuple(turns) == pitches()
    slips = [float(np.median(np.abs(np.diff(each[::SVC_HOP])))) for each in turns.values()]
    assert max(slips) * STEM_RATE_HZ / SVC_HOP < 3  # Hz

    network = Bigvgan(SIZES.vocoder)
    masks = install(network, oscillators)
    mel = torch.randn(1, SIZES.vocoder.num_mels, 120)
    block = network.resblocks[0]
    with torch.no_grad():
        x = network.ups[0][0](network.conv_pre(mel))  # type: ignore[index]
        hidden = block.activations[1](block.convs1[0](block.activations[0](x)))  # type: ignore[index, operator]
        found = (x + block.convs2[0](hidden))[:, 1 : oscillators.width + 1]  # type: ignore[index, operator]
        wanted = oscillators(mel[:, -N_NOISE : 1 - N_NOISE])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert all(bool(((mask == 0) | (mask == 1)).all()) for mask in masks.values())


# ----------------------------------------------------------------------------------------------------------- trainings


def steps(task: Task, n: int) -> None:
    """Take plain steps down, and see the loss of one batch fall."""
    batch = task.compose(MOMENT, np.random.default_rng(0))
    optimiser = torch.optim.Adam(task.network.parameters(), 3e-4)
    losses = []
    for _ in range(n):
        torch.manual_seed(1)
        optimiser.zero_grad()
        loss, _parts = task.loss(batch, MOMENT)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[1:]) < losses[0]
    grouped = [id(parameter) for group in task.groups() for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in task.network.parameters())
    task.network.eval()
    assert all(np.isfinite(value) for value in task.check().values())


def test_all_four_learn_and_write_what_an_export_opens(tmp_path: Path) -> None:
    of_content = ContentTask(SIZES.whisper, songs(), held_out(), {})
    of_style = StyleTask(DEMO_STYLE, songs(), held_out(), {})
    of_conversion = ConversionTask(SIZES, of_content.encoder, songs(), held_out(), {})
    of_vocoder = VocoderTask(SIZES.vocoder, songs(), held_out(), {})
    for task in (of_content, of_style, of_conversion, of_vocoder):
        again = task.compose(MOMENT, np.random.default_rng(0))[-1]
        assert torch.equal(again, task.compose(MOMENT, np.random.default_rng(0))[-1])
        task.network.train()
        steps(task, 4)
        assert all(path.is_file() for path in task.write(tmp_path))

    sizes, sources = open_converter(tmp_path, DEMO_SVC)
    assert sizes == SIZES
    mel = torch.randn(1, SIZES.vocoder.num_mels, 20) - 5
    pairs = [(load_network(sizes.vocoder, sources["vocoder"]), of_vocoder.network, (mel,))]
    features = torch.randn(1, 40, DEMO_STYLE.n_bands)
    opened = load_network(DEMO_STYLE, open_campplus(tmp_path / CAMPPLUS, DEMO_STYLE))
    pairs.append((opened, of_style.network, (features,)))  # type: ignore[arg-type]
    speech = torch.randn(1, 80, 3000)
    pairs.append((load_network(sizes.whisper, sources["svc_content"]), of_content.encoder, (speech,)))  # type: ignore[arg-type]
    state = torch.randn(1, 12, 80)
    given = (state, state, torch.randn(1, 16), torch.randn(1, 12, 32), torch.tensor([0.5]))
    pairs.append((load_network(sizes.dit, sources["svc_cfm"]), of_conversion.flow, given))  # type: ignore[arg-type]
    regulated = (torch.randn(1, 6, 32), torch.arange(6), torch.arange(6)[None])
    pairs.append((load_network(sizes.regulator, sources["svc_regulator"]), of_conversion.regulator, regulated))  # type: ignore[arg-type]
    for found, wanted, inputs in pairs:
        wanted.eval()
        with torch.no_grad():
            torch.testing.assert_close(found(*inputs), wanted(*inputs), atol=2e-2, rtol=2e-2)  # float16 weights


def test_the_vocoders_training_leaves_the_oscillators_as_they_are() -> None:
    task = VocoderTask(SIZES.vocoder, songs(), held_out(), {})
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    steps(task, 4)
    block = "resblocks.0.convs1.0.weight"
    width = Oscillators().width
    after = task.network.state_dict()
    assert torch.equal(after[block][:width], before[block][:width])
    assert not torch.equal(after[block][width:], before[block][width:])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes: expected a first rate of 1"):
        VocoderTask(replace(SIZES.vocoder, upsample_rates=(8, 8, 8), upsample_kernel_sizes=(16, 16, 16)), [], [], {})
    with pytest.raises(ValueError, match="sizes: expected an embedding of 16, got 8"):
        StyleTask(replace(DEMO_STYLE, embedding=8), [], [], {})
    with pytest.raises(ValueError, match="sizes: expected a style of 16, got 8"):
        ConversionTask(replace(SIZES, dit=replace(SIZES.dit, style_dim=8)), ContentEncoder(SIZES.whisper), [], [], {})


def test_a_slot_fades_as_long_as_the_worlds() -> None:
    assert (SLOT, FADE) == (1764, 1323)
