"""The codec's training for the preset demo: latents, crops, losses, both trainings, weights and their evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartvoice.config.presets import DEMO_CODEC
from heartvoice.evaluation.measures import pitch_kept
from heartvoice.models.heartcodec.codec import HeartCodec
from heartvoice.models.heartcodec.scalar import LEVELS
from heartvoice.models.load import Checkpoint, load_network
from tests.support.demo_band import DemoBand
from train.demo import codec_commands, decoder, flow, layout, polyphase, slots
from train.demo.__main__ import main
from train.demo.audio_losses import losses
from train.demo.code_vectors import SHARES, start_code_vectors
from train.demo.codec_evaluation import CodecFigures, missed, score_pitch, summary
from train.demo.codec_network import codebooks, new_decoder, new_flow
from train.demo.codec_states import trained_decoder
from train.demo.crops import PARTS, cut, mix, only, without
from train.demo.decoder import DecoderTask
from train.demo.decoder_start import start_as_synthesis
from train.demo.flow import FlowTask
from train.demo.score import Codes
from train.demo.score_encoder import SLOTS, ScoreEncoder, flipped, rounded, stereo_targets
from train.demo.songs import held_out_song, training_song
from train.frame.errors import TrainingError
from train.frame.loop import Options, train
from train.frame.optimisers import Optimisers
from train.frame.state import load_state
from train.frame.task import Moment, Task

SMALL = replace(DEMO_CODEC, attention_head_dim=4, num_layers=1)
"""A codec with the demo's decoder and a small flow."""
BAND = DemoBand()


@pytest.fixture(scope="module", autouse=True)
def _short_crops() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "SHAPES", ((0.5, 2, 3), (0.5, 1, 5)))
        patch.setattr(decoder, "CHECK_FRAMES", 6)
        patch.setattr(flow, "SHAPES", ((1.0, 2, 8),))
        patch.setattr(flow, "CHECK_FRAMES", 12)
        patch.setattr(ScoreEncoder, "start_from", _as_the_one)  # made once, for its tables are large
        yield


@lru_cache(maxsize=1)
def songs() -> tuple[Codes, ...]:
    return tuple(training_song(number).codes for number in range(2))


def some_of_everything() -> Codes:
    """A few frames in which every part plays."""
    codes = songs()[0]
    playing = [codes[layout.NOTE] > 0, codes[layout.LEAD] > 0, codes[layout.LOW] % layout.N_DRUM > 0]
    starts = [int(np.flatnonzero(each)[0]) // 2 * 2 for each in playing]
    return np.concatenate([codes[:, start : start + 4] for start in starts], axis=1)


FILL = ScoreEncoder.start_from


@lru_cache(maxsize=1)
def encoder() -> ScoreEncoder:
    made = ScoreEncoder().eval()
    FILL(made, BAND, (*songs(), some_of_everything()))
    return made


def _as_the_one(network: ScoreEncoder, *_: object) -> None:
    network.load_state_dict(encoder().state_dict())


def frames_of(n_frames: int, **books: int) -> torch.Tensor:
    """Codes [1, 8, n] of one held sound from the first frame of a bar on."""
    codes = np.zeros((layout.N_BOOKS, n_frames), np.int64)
    codes[layout.CLOCK] = np.arange(n_frames)
    for book, code in books.items():
        codes[getattr(layout, book)] = code
    return torch.from_numpy(codes)[None]


def latents_of(codes: torch.Tensor, part: str) -> torch.Tensor:
    """One part's latents of the left channel, [T, slots]."""
    start = sum(size for name, size in list(SLOTS.items())[: list(SLOTS).index(part)])
    with torch.inference_mode():
        encoded: torch.Tensor = encoder()(codes, torch.zeros(1, dtype=torch.int64))
    return encoded[0, start : start + SLOTS[part]].T


def held(chord: str) -> int:
    return layout.chord_id(layout.Played(0, layout.CHORDS.index(chord), layout.CHORD_FRAMES - 1))


# ---------------------------------------------------------------------------------------------------------- latents


@pytest.mark.parametrize(
    ("books", "part", "period"),
    [
        ({"CHORD": held("C")}, "chord", 2),
        ({"LOW": layout.low_id(layout.Low(layout.CHORDS.index("F"), 7, 0))}, "bass", 2),
        ({"LOW": layout.low_id(layout.Low(layout.CHORDS.index("Em"), 7, 0))}, "bass", 4),  # 7.5 u
        ({"LEAD": layout.lead_id(layout.Played(1, 3, 11))}, "lead", 2),
        ({"NOTE": layout.note_id(layout.SungNote(1, 4, 1)), "ATOM_1": 9, "ATOM_2": 9}, "voice", 4),  # 22.5 u
    ],
)
def test_latents_of_a_held_tone_repeat_with_its_wave(books: dict[str, int], part: str, period: int) -> None:
    latents = latents_of(frames_of(6, **books), part)
    assert torch.allclose(latents[period:], latents[:-period], atol=1e-4)
    assert not torch.allclose(latents[period // 2 :], latents[: -(period // 2)], atol=1e-2)


def test_a_voice_without_a_note_or_without_an_atom_is_silence() -> None:
    silence = latents_of(frames_of(2), "voice")
    note = layout.note_id(layout.SungNote(2, 3, 1))
    assert torch.equal(latents_of(frames_of(2, ATOM_1=5, ATOM_2=6), "voice"), silence)
    assert torch.equal(latents_of(frames_of(2, NOTE=note), "voice"), silence)
    assert not torch.equal(latents_of(frames_of(2, NOTE=note, ATOM_1=5, ATOM_2=6), "voice"), silence)


def test_latents_are_rounded_and_flips_move_them_by_a_level() -> None:
    levels = rounded(torch.linspace(-0.99, 0.99, 1000))
    assert torch.allclose(levels * LEVELS, (levels * LEVELS).round(), atol=1e-5)
    moved = (flipped(levels, 0.25) - levels).abs() * LEVELS
    assert torch.all((moved < 1e-5) | ((moved - 1).abs() < 1e-5))
    assert 0.15 < float((moved > 0.5).float().mean()) < 0.35


def test_waves_of_the_latents_add_up_to_the_song() -> None:
    """But for the voice, of which the latents have the leading components alone."""
    song = without(songs()[0][:, 48:96], frozenset({"voice"}))
    for channel in (0, 1):
        with torch.inference_mode():
            latents = encoder()(torch.from_numpy(song)[None], torch.tensor([channel]))[0]
        rendered = mix(BAND.stems(song))[channel]
        error = slots.joined((latents.T @ encoder().waves()).numpy()) - rendered
        assert (error**2).sum() < 1e-3 * (rendered**2).sum()


def test_a_part_that_no_song_has_stays_silent() -> None:
    band, network = DemoBand(), ScoreEncoder()
    FILL(network, band, [only(some_of_everything(), "drum")])
    assert network.drum_latents.any()
    assert not network.chord_latents.any()
    assert not network.waves()[SLOTS["voice"] : -SLOTS["drum"]].any()


# ------------------------------------------------------------------------------------------------- crops and losses


def test_a_crop_is_a_piece_of_its_song() -> None:
    song = songs()[0]
    whole, rng = mix(BAND.stems(song)), np.random.default_rng(0)
    found = 0
    for _ in range(8):
        crops = cut([song], BAND, (1, 4), rng)
        for start in range(song.shape[1] - 3):
            if np.array_equal(song[:, start : start + 4], crops.codes[0]):
                samples = slice(start * layout.FRAME_SAMPLES, (start + 4) * layout.FRAME_SAMPLES)
                found += np.allclose(whole[crops.channel[0], samples], crops.audio[0], atol=1e-6)
    assert found >= 3  # the others lack parts


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_left_out_is_silent_and_the_others_stay(part: str) -> None:
    song = some_of_everything()
    before, after = BAND.stems(song), BAND.stems(without(song, frozenset({part})))
    alone = BAND.stems(only(song, part))
    for name in PARTS:
        assert np.array_equal(after[name], np.zeros_like(before[name]) if name == part else before[name])
        assert alone[name].any() == (name == part)


def test_songs_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5000 frames"):
        cut(songs(), BAND, (1, 5000), np.random.default_rng(0))


def test_losses_vanish_for_the_rendered_audio_and_stay_small_in_silence() -> None:
    audio = torch.from_numpy(mix(BAND.stems(songs()[0][:, :8])))
    assert losses(audio, audio)[0].item() == 0.0
    soft = (1e-3 * torch.randn(2, 9600)).requires_grad_()
    loud = (1e-1 * torch.randn(2, 9600)).requires_grad_()
    total, terms = losses(soft, torch.zeros(2, 9600))
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() < losses(loud, torch.zeros(2, 9600))[0].item()
    assert set(terms) == {"error", "wave", "emphasised", "spectrum", "log_spectrum"}
    assert soft.grad is not None
    assert soft.grad.isfinite().all()


@pytest.mark.parametrize("num_samples", [4, 3])
def test_the_decoder_is_the_same_function_in_phases(num_samples: int) -> None:
    torch.manual_seed(0)
    model = new_decoder(replace(SMALL, num_samples=num_samples, default_kernel_size=7, init_channel=2))
    latents = torch.randn(2, SMALL.latent_hidden_dim, 3)
    expected = model.decoder(latents)[:, 0]
    assert torch.allclose(polyphase.decode(model, latents), expected, atol=1e-6)
    assert expected.abs().max() > 1e-3


def test_phases_need_repeated_samples() -> None:
    with pytest.raises(TypeError, match="repeats samples, got DecoderStage"):
        polyphase.decode(new_decoder(replace(SMALL, num_samples=1)), torch.zeros(1, SMALL.latent_hidden_dim, 1))


# ---------------------------------------------------------------------------------------------------------- trainings


def decoder_task() -> DecoderTask:
    return DecoderTask(SMALL, BAND, songs(), songs()[:1], {})


@pytest.fixture(scope="module")
def decoder_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    assert train(decoder_task, Options(state=folder, steps=2))
    return folder


def flow_task(decoder_state: Path) -> FlowTask:
    return FlowTask(SMALL, *trained_decoder(SMALL, decoder_state), songs(), songs()[:1])


def falls(task: Task, batch: Any, n_steps: int) -> None:
    """Descend on one batch with the task's own groups."""
    optimisers, values = Optimisers(task.network, task.groups()), []
    for step in range(n_steps):
        torch.manual_seed(0)
        task.network.zero_grad()
        loss, _ = task.loss(batch, Moment(step, 1000))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(task.network.parameters(), task.clip)
        optimisers.step(1.0)
        values.append(loss.item())
    assert values[-1] < 0.9 * values[0], values


def test_the_decoder_learns_a_crop() -> None:
    torch.manual_seed(0)
    task = decoder_task()
    batch = {
        "codes": torch.from_numpy(songs()[0][None, :, :4]), "channel": torch.tensor([0]),
        "audio": torch.from_numpy(mix(BAND.stems(songs()[0][:, :4]))[:1]),
    }  # fmt: skip
    falls(task, batch, 8)


def test_the_flow_learns_a_crop(decoder_state: Path) -> None:
    torch.manual_seed(0)
    falls(flow_task(decoder_state), torch.from_numpy(songs()[0][None, :, :16]), 12)


@pytest.mark.parametrize("kind", ["decoder", "flow"])
def test_an_interrupted_training_ends_with_the_same_weights(kind: str, tmp_path: Path, decoder_state: Path) -> None:
    make: Callable[[], Task] = decoder_task if kind == "decoder" else lambda: flow_task(decoder_state)
    train(make, Options(state=tmp_path / "whole", steps=3))
    assert not train(make, Options(state=tmp_path / "parts", steps=3, minutes=0.0))
    assert train(make, Options(state=tmp_path / "parts", steps=3))
    whole, parts = load_state(tmp_path / "whole"), load_state(tmp_path / "parts")
    assert whole is not None
    assert parts is not None
    assert all(torch.equal(tensor, parts.network[name]) for name, tensor in whole.network.items())


def test_a_decoder_begins_as_the_synthesis_of_its_latents() -> None:
    task, song = decoder_task(), songs()[0][:, :12]
    codes, rendered = torch.from_numpy(song)[None], mix(BAND.stems(song))
    with torch.inference_mode():
        decoded = task.decoder.decode(encoder()(codes, torch.tensor([0])))[0, 0].numpy()
    counted = slice(layout.ATOM_SAMPLES, None)
    error = decoded[counted] - rendered[0, counted]
    assert (error**2).sum() < 0.1 * (rendered[0, counted] ** 2).sum()


def test_a_decoder_with_too_few_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 256 channels at first, got 128"):
        start_as_synthesis(new_decoder(replace(SMALL, init_channel=8)), encoder().waves())


def test_a_flow_needs_a_decoder_s_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training state"):
        trained_decoder(SMALL, tmp_path)


def test_known_latents_are_no_part_of_the_flow_s_loss(decoder_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = flow_task(decoder_state), torch.from_numpy(songs()[0][None, :, :8])
    everything = lambda n_rows, n_latents, device: torch.ones(n_rows, n_latents, 1, dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr(flow, "_known", everything)
    assert task.loss(batch, Moment(9, 10))[0].item() == 0.0


def test_code_vectors_have_dimensions_of_their_own() -> None:
    network = new_flow(SMALL)
    start_code_vectors(network, encoder(), songs())
    used = [codebook.embed[0].detach().abs().sum(0) > 0 for codebook in codebooks(network)]
    assert torch.stack(used).sum(0).max() == 1
    assert [bool(dims.any()) for dims in used] == [book in SHARES for book in range(layout.N_BOOKS)]
    codes = torch.from_numpy(songs()[0][None])
    assert torch.allclose(network.condition(codes)[:, ::2], network.vq_embed(codes.transpose(1, 2)))


# -------------------------------------------------------------------------------------------- weights and evaluation


def test_written_weights_load_strictly_and_sound_the_same(decoder_state: Path, tmp_path: Path) -> None:
    task = flow_task(decoder_state)
    task.write(tmp_path)
    codec = load_network(SMALL, Checkpoint.open(tmp_path / flow.CODEC_FOLDER), decode_only=True)
    assert isinstance(codec, HeartCodec)
    codes = songs()[0][:, :93]
    with torch.inference_mode():
        latents = stereo_targets(task.encoder, torch.from_numpy(codes)[None])
        expected = task.decoder.half().float().decode(latents[0].T.reshape(2, -1, latents.shape[1]))[:, 0].numpy()
        condition = task.flow.condition(torch.from_numpy(codes)[None])
        assert torch.allclose(codec.flow_matching.condition(torch.from_numpy(codes)[None]), condition, atol=1e-2)
    assert np.array_equal(codec.decode_latents(latents), expected)


def test_a_decoder_alone_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="flow --output"):
        decoder_task().write(tmp_path)


def test_the_evaluation_command_reports_every_bar(
    decoder_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flow_task(decoder_state).write(tmp_path)
    short = replace(held_out_song(0), codes=held_out_song(0).codes[:, 48:72])
    monkeypatch.setattr(codec_commands, "DEMO_CODEC", SMALL)
    monkeypatch.setattr(codec_commands, "Renderer", DemoBand)
    monkeypatch.setattr(codec_commands, "held_out_song", lambda number: short)
    arguments = ["evaluate-codec", "--weights", str(tmp_path), "--decoder", str(decoder_state), "--songs", "1"]
    assert main([*arguments, "--no-judges", "--steps", "1"]) == codec_commands.MISSED
    report = json.loads(capsys.readouterr().out)
    assert set(report["missed"]) == set(report["bars"])
    assert report["mean"]["oracle_si_sdr_db"] < 18
    assert report["songs"][0]["lyric_error"] is None
    assert report["settings"] == {"steps": 1, "guidance": 1.0, "window": 93, "seed": 0}


def test_a_pitch_counts_where_the_rendered_voice_has_it() -> None:
    codes = frames_of(3, NOTE=layout.note_id(layout.SungNote(0, 1, 1)))[0].numpy()
    wanted = score_pitch(codes, 24)
    assert np.array_equal(wanted, np.full(24, 200.0))
    rendered = np.full(24, 201.0, np.float32)
    rendered[:4] = 0  # a consonant
    decoded = np.full(24, 200.5, np.float32)
    decoded[:4] = 400
    decoded[4:9] = 210  # 84 cents
    decoded[9] = 0
    kept, cents = pitch_kept(wanted, rendered, decoded)
    assert kept == pytest.approx(14 / 20)
    assert cents == pytest.approx(4.32, abs=0.01)
    assert pitch_kept(wanted, np.zeros_like(rendered), decoded) == (None, None)


def test_bars_are_missed_by_means_over_the_songs_that_have_a_value() -> None:
    made = CodecFigures(0, "", 1.0, 19.0, 17.0, 1.0, 1.0, 0.1, 10.0, 0.98, 2.0, None, None)
    means = summary([made, replace(made, oracle_si_sdr_db=16.0, f0_within_50=None)])
    assert means["oracle_si_sdr_db"] == 17.5
    assert missed(means) == ["oracle_si_sdr_db"]
    assert missed({}) == ["oracle_si_sdr_db", "flow_si_sdr_db", "f0_within_50"]
