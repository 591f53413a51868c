"""What the vocoder's stages draw, judge and cut, apart from any training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vocoder_runs import VOCODER, make_corpus, write_recipe
from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings, HiftSettings, HiftTraining
from vocalnet_cli.core.model.speech_llm import build_model
from vocalnet_cli.core.model.speech_tokenizer import mel_pairs
from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import Schedule
from vocalnet_cli.core.training.stages.clips import sound_mel
from vocalnet_cli.core.training.stages.flow import FlowStage, draw_blocks, start_tokens
from vocalnet_cli.core.training.stages.hift import HiftStage, start_filter, start_pitch, through_pauses
from vocalnet_cli.core.training.stages.judges import Judges, adversarial_loss, feature_distance, judging_loss
from vocalnet_cli.core.training.stages.spectral import mel_distance, spectral_distance
from vocalnet_cli.core.training.stages.speech_tokenizer import SpeechTokenizerStage
from vocalnet_cli.core.training.stages.stage import DEV_DRAW

SETTINGS = CosyVoice2Settings.model_validate_json(json.dumps(VOCODER))


def stage_of(folder: Path, kind: type, **train: object):
    """A stage with its examples, its weights random."""
    make_corpus(folder)
    recipe = load_recipe(str(write_recipe(folder, kind.part, train, {"manifest": str(folder / "manifest.jsonl")}))).recipe
    torch.manual_seed(0)
    stage = kind(recipe, build_model(recipe.model, ("vocoder",)), folder / "cache", (kind.part,))
    stage.load_examples()
    return stage


def test_masks_are_drawn_in_the_share_asked_for():
    chance = np.random.default_rng(0)
    drawn = [draw_blocks(11, SETTINGS, 0.6, chance) for _ in range(4000)]
    assert all(sum(blocks.sizes) == 11 for blocks in drawn)
    ways = Counter(blocks.sizes for blocks in drawn)
    whole, single, block, twice, answer = (11,), (1,) * 11, (4, 4, 3), (8, 3), tuple(Schedule(3, 6).sizes(11))
    assert set(ways) == {whole, single, block, twice, answer}
    assert ways[whole] == pytest.approx(0.4 * 4000, rel=0.08)
    assert all(ways[way] == pytest.approx(0.15 * 4000, rel=0.12) for way in (single, block, twice, answer))
    assert {blocks.window for blocks in drawn if blocks.sizes != whole} == {SETTINGS.window_tokens}
    assert {draw_blocks(11, SETTINGS, 0.0, chance).sizes for _ in range(50)} == {whole}


def test_the_condition_is_hidden_and_given_in_the_shares_asked_for(tmp_path):
    stage = stage_of(tmp_path, FlowStage, flow={"drop": 0.2, "prompt_share": 0.5, "longest_prompt": 0.3})
    example = stage.examples[0]
    batch = stage.collate([(example, draw) for draw in range(2000)])
    frames = 2 * len(example[0])
    assert float(batch["blind"].float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float((batch["known"] > 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    assert int(batch["known"].max()) <= 0.3 * frames < 1.3 * int(batch["known"].max())
    assert float(batch["times"].mean()) == pytest.approx(0.5, abs=0.02)
    assert float(batch["noise"].std()) == pytest.approx(1.0, abs=0.01)


def test_a_draw_depends_on_its_number_alone(tmp_path):
    stage = stage_of(tmp_path, FlowStage)
    first, second = stage.examples[:2]
    alone, together = stage.collate([(first, 7)]), stage.collate([(second, 3), (first, 7)])
    count = alone["noise"].shape[-1]
    assert together["noise"][1, :, :count].equal(alone["noise"][0]) and together["times"][1] == alone["times"][0]
    again = stage.collate([(first, 8)])
    assert not again["noise"].equal(alone["noise"])
    dev = [stage.collate([(first, DEV_DRAW)]) for _ in range(2)]
    assert all(dev[0][name].equal(dev[1][name]) for name in dev[0])
    assert not dev[0]["blind"].any() and not dev[0]["known"].any()


def test_another_voice_says_the_tokens_of_the_first_at_its_pace(tmp_path):
    """The deep voice says the same 1.2 times slower: it lends the first voice's tokens, and its mel takes their pace."""
    make_corpus(tmp_path)
    stage = stage_of(tmp_path, FlowStage)
    assert stage.speakers.names == ["slt", "rms"]
    first, deep = ([example for example in stage.examples if example[2] == voice] for voice in (0, 1))
    assert len(first) == 6 and len(deep) == 3 and not any(lent for *_, lent in first) and all(lent for *_, lent in deep)
    for number, (tokens, mel, *_) in enumerate(deep):
        parallel = stage.examples[2 * number]  # by file name: 0, 0-deep, 1, 1-deep, 2, 2-deep, 3, 4, 5
        assert tokens.equal(parallel[0]) and len(mel) == len(parallel[1]) == 2 * len(tokens)
        slow = sound_mel(tmp_path / f"{number}-deep.wav").T
        assert len(slow) == pytest.approx(1.2 * len(mel), abs=3)
        assert float((mel.float().mean(0) - slow.mean(0)).abs().mean()) < 0.5  # but in its own voice
    batch = stage.collate([(example, 0) for example in stage.examples])
    told = stage.counts(**batch).tolist()
    assert told == [sum(len(example[0]) for example in some) for some in (stage.examples, first)]


@torch.no_grad()
def test_the_flow_s_loss_is_the_same_however_a_step_is_cut(tmp_path):
    """Means over tokens and over those whose frames the encoder must give, of all batches of a step together."""
    make_corpus(tmp_path)
    stage = stage_of(tmp_path, FlowStage)
    draws = [(example, number) for number, example in enumerate(stage.examples[:5])]
    whole, parts = stage.collate(draws), [stage.collate(draws[:1]), stage.collate(draws[1:2]), stage.collate(draws[2:])]
    targets = sum(stage.counts(**part) for part in parts)
    assert targets.equal(stage.counts(**whole)) and targets[1] < targets[0]
    stage.eval()
    wanted = stage(**whole)["loss"]
    torch.testing.assert_close(stage(**whole, targets=targets)["loss"], wanted)
    torch.testing.assert_close(sum(stage(**part, targets=targets)["loss"] for part in parts), wanted, atol=1e-4, rtol=1e-4)


def test_a_piece_is_the_same_moment_in_sound_mel_and_pitch(tmp_path):
    stage = stage_of(tmp_path, HiftStage)
    clip, hz = stage.examples[0]
    batch = stage.collate([((clip, hz), draw) for draw in range(20)])
    whole = torch.from_numpy(read_audio(clip.path, 24_000))
    whole = torch.nn.functional.pad(whole, (0, -len(whole) % 960))
    mel, starts = vocoder_mel(whole), set()
    for sound, frames, pitch in zip(batch["sound"], batch["mel"], batch["hz"], strict=True):
        start = next(at for at in range(len(hz)) if whole[480 * at : 480 * at + len(sound)].equal(sound))
        starts.add(start)
        assert frames.equal(mel[:, start : start + frames.shape[1]])
        assert pitch.equal(through_pauses(hz.float())[start : start + len(pitch)])  # a filter's
    assert len(starts) > 3


def test_judges_begin_at_their_part_of_the_steps(tmp_path):
    stage = stage_of(tmp_path, HiftStage, steps=10, batch_size=2)
    judged = [bool(stage.collate([(stage.examples[0], draw)])["judged"]) for draw in range(20)]
    assert judged == [False] * 10 + [True] * 10


def test_hift_and_judges_each_learn_from_their_own_loss(tmp_path):
    stage = stage_of(tmp_path, HiftStage)
    batch = stage.collate([(stage.examples[0], 19)])
    stage.train()
    terms = stage(**batch)["terms"]
    learned = {"hift": list(stage.vocoder.hift.parameters()), "judges": list(stage.judges.parameters())}

    def taught(name: str, term: str) -> bool:
        found = torch.autograd.grad(terms[term], learned[name], retain_graph=True, allow_unused=True)
        return any(grad is not None and bool(grad.abs().max() > 0) for grad in found)

    assert taught("judges", "judging") and not taught("hift", "judging")
    for term in ("mel", "spectral", "adversarial", "features", "pitch"):
        assert taught("hift", term) and not taught("judges", term), term
    pitch_predictor = list(stage.vocoder.hift.f0_predictor.parameters())
    found = torch.autograd.grad(terms["mel"], pitch_predictor, retain_graph=True, allow_unused=True)
    assert all(grad is None for grad in found)  # the sum of all phases is no way back to a pitch
    assert all(parameter.requires_grad for parameter in stage.judges.parameters())


@torch.no_grad()
def test_losses_vanish_where_there_is_no_difference():
    torch.manual_seed(0)
    sound = torch.randn(2, 7200) * 0.1
    other = torch.randn(2, 7200) * 0.1
    judges = Judges(HiftTraining(period_channels=1, spectrum_channels=2))
    assert len(judges.judges) == 5 + 3
    assert float(mel_distance(sound, sound)) == 0 and float(spectral_distance(sound, sound, (256, 512))) == 0
    assert float(mel_distance(sound, 0.5 * sound)) == pytest.approx(np.log(2), abs=0.02)
    opinions = judges(sound)
    assert float(feature_distance(opinions, opinions)) == 0 < float(feature_distance(opinions, judges(other)))
    sure = [[torch.ones(2, 5)]], [[torch.zeros(2, 5)]]
    assert float(judging_loss(*sure)) == 0 and float(adversarial_loss(sure[1])) == 1
    assert float(judging_loss(*reversed(sure))) == 2 and float(adversarial_loss(sure[0])) == 0


@torch.no_grad()
def test_an_untrained_pitch_begins_among_the_voices(tmp_path):
    stage = stage_of(tmp_path, HiftStage)
    hift = stage.vocoder.hift
    from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory

    hz = torch.cat([hz for _, hz in stage.examples]).float()
    voiced = hz[hz > 0]
    found = hift.f0_predictor(vocoder_mel(torch.from_numpy(read_audio(stage.examples[0][0].path, 24_000)))[None], Memory())
    assert float(found.mean()) == pytest.approx(float(voiced.mean()), rel=0.7)
    start_pitch(hift, torch.zeros(5))  # nobody speaks: nothing to begin at


def test_a_filters_pitch_goes_on_through_pauses():
    hz = through_pauses(torch.tensor([0.0, 100.0, 0.0, 0.0, 200.0, 0.0]))
    assert torch.allclose(hz, torch.tensor([100.0, 100.0, 400 / 3, 500 / 3, 200.0, 200.0]))
    assert through_pauses(torch.zeros(3)).tolist() == [100.0] * 3


def test_more_windows_see_the_same_difference_of_loudness():
    sound = 0.1 * torch.randn(2, 9600, generator=torch.Generator().manual_seed(0))
    for windows in ((), (256,), (256, 512, 1024)):
        assert mel_distance(sound, sound, windows) == 0
        assert float(mel_distance(sound / 2, sound, windows)) == pytest.approx(np.log(2), rel=1e-3)
    click = sound.clone()
    click[:, 4800:4810] = 1.0
    assert mel_distance(click, sound, (256,)) != mel_distance(click, sound)


@pytest.mark.parametrize(("key", "window"), [("mel_windows", 2), ("mel_windows", 11_520), ("resolutions", 11_520)])
def test_a_window_that_no_piece_can_fill_is_refused(key: str, window: int):
    with pytest.raises(ValueError, match=f"{key} has {window}"):
        HiftTraining(segment_frames=12, **{key: (window,)})


@torch.no_grad()
def test_an_untrained_filter_lets_the_sines_through_and_little_noise():
    torch.manual_seed(0)
    hift = Hift(HiftSettings(output="filter", channels=16, f0_channels=8)).eval()
    start_filter(hift)
    mel, hz, noise = torch.zeros(1, 80, 20), torch.full((1, 20), 200.0), torch.randn(1, 20 * 480, 1)
    heard = hift.decode(mel, hift.m_source(hz, noise, Memory()))
    silent = hift.decode(mel, hift.m_source(hz, noise * 0, Memory()))
    assert silent.std() > 0.005 and (heard - silent).std() < 0.05  # of noise whose deviation is 1
    released = Hift(HiftSettings(channels=16, f0_channels=8))
    before = released.conv_post.bias.clone()
    start_filter(released)
    assert released.conv_post.bias.equal(before)


def test_an_untrained_flow_knows_which_tokens_sound_alike(tmp_path):
    flow, chance = stage_of(tmp_path, FlowStage).vocoder.flow, torch.Generator().manual_seed(0)
    book = 3 + 0.2 * torch.randn(len(flow.input_embedding.weight), 12, generator=chance)
    book[1] = book[0] + 0.001
    start_tokens(flow, book)
    rows = flow.input_embedding.weight.detach()
    assert 0.5 < float(rows.std()) < 2
    apart = torch.cdist(rows, rows)
    assert apart[0, 1] < 0.02 * apart[0, 2:].min()
    again = rows.clone()
    start_tokens(flow, book)
    assert rows.equal(again)


def test_half_of_the_recordings_begin_late_in_a_token(tmp_path):
    """Those of training, always the same ones; none of dev."""
    make_corpus(tmp_path)
    recipe = load_recipe(str(write_recipe(tmp_path, "speech-tokenizer", {}, {"manifest": str(tmp_path / "manifest.jsonl")}))).recipe
    found = []
    for _ in range(2):
        stage = SpeechTokenizerStage(recipe, build_model(recipe.model, ("vocoder",)), tmp_path / "cache", ("vocoder",))
        stage.load_examples()
        found.append(stage)
    plain = [mel_pairs(read_audio(tmp_path / name, 24_000)) for name in found[0].ids]
    late = [
        len(pairs) != len(own) or not torch.allclose(pairs.float(), own, atol=0.01)
        for (pairs, _), own in zip(found[0].examples, plain, strict=True)
    ]
    assert late == [bool(number % 2) for number in range(len(late))]
    assert all(one.equal(other) for (one, _), (other, _) in zip(found[0].examples, found[1].examples, strict=True))
    dev = [mel_pairs(read_audio(tmp_path / f"{number}.wav", 24_000)).half() for number in (6, 7)]
    assert all(any(pairs.equal(one) for one in dev) for pairs, _ in found[0].dev_examples)
