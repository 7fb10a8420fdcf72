"""The language model's training: head start, batches, files, and how its songs are judged."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartvoice.config.presets import DEMO_IDS, DEMO_LM, TransformerConfig
from heartvoice.models.llama import Attention
from heartvoice.models.prompt import load_tokenizer
from heartvoice.models.rope import apply_rope
from train.demo import layout, reading
from train.demo.__main__ import main
from train.demo.lm import evaluate
from train.demo.lm.batches import BAR, FRAME, IGNORED, batch_of
from train.demo.lm.evaluate import Sampling, judge, summary
from train.demo.lm.examples import onsets, opening, random_song, words_alone
from train.demo.lm.task import LmTask
from train.demo.prompt import UNKNOWN, prompt_of, token_word, vocabulary
from train.demo.score import Tags
from train.demo.songs import held_out_song
from train.frame.task import Moment

SMALL = replace(
    DEMO_LM, backbone=TransformerConfig(2, 2, 1, 64, 96, 4096), decoder=TransformerConfig(1, 1, 1, 32, 48, 2048)
)


@pytest.fixture(scope="module")
def task() -> LmTask:
    torch.manual_seed(0)
    return LmTask(SMALL, songs=2)


def test_a_batch_s_target_is_what_follows() -> None:
    rng = np.random.default_rng(0)
    examples = [random_song(rng, Tags(), 6, 0.3), words_alone(rng, 4)]
    batch = batch_of(examples, rng, eos_id=DEMO_IDS.audio_eos_id, blank=0.0)
    for row, example in enumerate(examples):
        prompt, frames = prompt_of(example.tags, example.lyrics), example.codes.shape[1]
        start = len(prompt.text_ids)
        assert batch["text"][row, :start].tolist() == prompt.text_ids.tolist()
        assert batch["style"][row] == prompt.style_index
        assert (batch["text"][row, start : start + frames] == FRAME).all()
        targets = batch["targets"][row]
        assert torch.equal(targets[start - 1 : start - 1 + frames], torch.from_numpy(example.codes.T))
        assert targets[start - 1 + frames, 0] == DEMO_IDS.audio_eos_id
        assert (targets[start - 1 + frames, 1:] == IGNORED).all()
        assert (targets[: start - 1] == IGNORED).all()
        assert (batch["targets"][row, start + frames :] == IGNORED).all()
        assert not (batch["depth"][row] & (targets[:, 1] == IGNORED)).any()
    assert batch["depth"][0].any()
    assert not batch["depth"][1].any()


def test_onsets_are_the_frames_in_which_words_begin() -> None:
    example = random_song(np.random.default_rng(1), Tags(), 9, 0.3)
    kept = onsets(example)
    assert kept.codes.shape[1] == 9
    assert (np.diff(kept.codes[layout.CURSOR]) != 0).all()


def test_an_opening_is_cut_and_does_not_end() -> None:
    song = random_song(np.random.default_rng(1), Tags(tempo="slow"), 9, 0.3)
    first, bars = opening(song, 0), opening(song, 2)
    assert first.codes.shape[1] == 1
    assert bars.codes.shape[1] == 2 * layout.BEATS * layout.TEMPI["slow"]
    rng = np.random.default_rng(0)
    batch = batch_of([first, bars, song], rng, eos_id=DEMO_IDS.audio_eos_id, blank=0.0)
    ends = (batch["targets"][..., layout.CURSOR] == DEMO_IDS.audio_eos_id).sum(1)
    assert ends.tolist() == [0, 0, 1]
    half_beats = batch["weight"][1] == BAR
    assert half_beats.sum() == 2 * 2 * layout.BEATS  # the first of them is the song's first frame, the last its end


def test_openings_are_composed_late_and_songs_beside_them(task: LmTask) -> None:
    """A song ends; what is cut has no end."""

    def shares(moment: Moment) -> float:
        batches = [task.compose(moment, np.random.default_rng(seed)) for seed in range(24)]
        return float(np.mean([bool((each["targets"] != DEMO_IDS.audio_eos_id).all()) for each in batches]))

    assert shares(Moment(50, 100)) == 0
    assert 0.4 < shares(Moment(75, 100)) < 1
    assert 0 < shares(Moment(90, 100)) < 0.6


def test_the_first_head_looks_one_position_back(task: LmTask) -> None:
    batch = task.compose(Moment(0, 100), np.random.default_rng(0))
    network = task.network
    attention = network.backbone.layers[0].attn
    assert isinstance(attention, Attention)
    seen: list[Any] = []
    with attention.register_forward_hook(lambda _module, inputs, _result: seen.extend(inputs)):
        task.hidden(batch)
    x, (cos, sin) = seen[:2]
    query = apply_rope(attention.q_proj(x)[..., : attention.head_dim], cos, sin)
    key = apply_rope(attention.k_proj(x)[..., : attention.head_dim], cos, sin)
    scores = (query @ key.mT)[0] * attention.head_dim**-0.5
    n_prompt = int((batch["text"][0] == FRAME).int().argmax())
    found = [int(scores[place, : place + 1].argmax()) for place in range(1, n_prompt)]
    assert found == list(range(n_prompt - 1))


def test_both_kinds_of_batches_have_all_gradients(task: LmTask) -> None:
    copying, songs = Moment(0, 100), Moment(50, 100)
    loss, parts = task.loss(task.compose(copying, np.random.default_rng(0)), copying)
    assert set(parts) == {"word"}
    assert bool(loss.isfinite())
    task.network.zero_grad()
    loss, parts = task.loss(task.compose(songs, np.random.default_rng(0)), songs)
    assert len(parts) == layout.N_BOOKS
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in task.network.parameters())


def test_fused_attention_gives_the_plain_one_s_values(task: LmTask, tmp_path: Path) -> None:
    task.write(tmp_path)
    plain = evaluate.load(tmp_path)
    fused = LmTask(SMALL, songs=2).network.eval()
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(2, 9, SMALL.backbone.embed_dim)
    start = torch.zeros(2, dtype=torch.int64)
    hidden, past = plain.backbone(x[:, :6], start)
    torch.testing.assert_close(fused.backbone(x[:, :6], start)[0], hidden)
    torch.testing.assert_close(fused.backbone(x[:, 6:], start + 6, past)[0], plain.backbone(x, start)[0][:, 6:])


def test_written_weights_are_a_checkpoint_that_writes_songs(task: LmTask, tmp_path: Path) -> None:
    files = task.write(tmp_path)
    assert {path.name for path in files} == {"model.safetensors", "config.json", "tokenizer.json", "gen_config.json"}
    network = evaluate.load(tmp_path)
    assert network.sizes == SMALL
    for name, tensor in task.network.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    assert load_tokenizer(tmp_path / "tokenizer.json").encode("pop").ids
    assert json.loads((tmp_path / "gen_config.json").read_text())["audio_eos_id"] == DEMO_IDS.audio_eos_id
    codes = evaluate.write_song(network, "pop", "[verse]\nthe river", Sampling(), 5)
    assert codes.shape == (layout.N_BOOKS, 5)


def test_the_world_s_own_songs_pass() -> None:
    songs = [held_out_song(number) for number in range(4)]
    report = summary([judge(song.codes, song, ended=True) for song in songs])
    assert report["word_error"] == 0
    assert report["tags"] == report["consistent"] == report["word_for_word"] == 1
    assert report["passed"]


def test_wrong_words_tags_and_chords_are_seen() -> None:
    song = held_out_song(0)
    codes = song.codes.copy()
    half = codes.shape[1] // 2
    codes[layout.CURSOR, half:] = codes[layout.CURSOR, half]
    codes[layout.CHORD] = np.roll(codes[layout.CHORD], 7)
    other = replace(song.tags, tempo="slow" if song.tags.tempo != "slow" else "fast")
    judged = judge(codes, replace(song, tags=other), ended=False)
    assert 0.3 * judged.n_words < judged.word_errors < 0.7 * judged.n_words
    assert not judged.tags["tempo"]
    assert judged.tags["lead"]
    report = summary([judged])
    assert report["ended"] == 0
    assert not report["passed"]
    assert report["met"] == {"word_error": False, "tags": False, "consistent": False}


def test_a_song_without_voice_and_band_is_not_consistent() -> None:
    song = next(song for number in range(9) if (song := held_out_song(number)).tags.style == "pop")
    codes = song.codes.copy()
    codes[layout.NOTE :] = 0
    report = summary([judge(codes, song, ended=True)])
    assert report["consistent"] == 0


def test_words_that_nobody_sings_leave_the_song_as_it_is() -> None:
    rng = np.random.default_rng(0)
    lyrics = [random_song(rng, Tags(tempo="fast"), 5, 0.3) for _ in range(40)]
    unknown = vocabulary()[UNKNOWN]
    strange = [example for example in lyrics if (prompt_of("", example.lyrics).text_ids == unknown).any()]
    assert 0 < len(strange) < 20
    for example in strange:
        known = [token for token in prompt_of("", example.lyrics).text_ids.tolist() if token_word(token)]
        assert len(known) == len(reading.sung_words(example.codes[layout.CURSOR])) == 5
    marks = {mark for example in lyrics for mark in re.findall(r"\[(\w+)\]", example.lyrics)}
    assert marks == {"verse", "prechorus", "bridge", "chorus", "intro", "outro"}


def test_the_command_judges_weights_and_says_which_bars_are_missed(
    task: LmTask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "MOST", 0.1)  # shorter songs, which are as wrong
    task.write(tmp_path)
    assert main(["evaluate-lm", "--weights", str(tmp_path), "--songs", "1", "--lines", "1", "--top-k", "1"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["songs"] == report["lines"] == len(report["sung"]) == 1
    assert not report["passed"]
    assert not report["met"]["word_error"]
    assert main(["evaluate-lm", "--weights", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
