"""Tokens and sound: any split of the tokens gives the same samples, and they sound like the codebook says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.vocoder_schema import GriffinLimSettings as VocoderSettings
from vocalnet_cli.core.evaluation.benchmarks import load_benchmark
from vocalnet_cli.core.model.speech_tokenizer import REACH, SpeechTokenizer, mel_pairs
from vocalnet_cli.core.model.vocoder import build_vocoder
from vocalnet_cli.core.model.vocoder.griffin_lim import mel_to_sound, sharpened


def voice(seconds: float = 3.0) -> torch.Tensor:
    """A buzz that glides from 110 to 220 Hz, swells and pauses."""
    t = torch.arange(int(seconds * 24000)) / 24000
    phase = 2 * torch.pi * (110 * t + 110 * t.square() / (2 * seconds))
    buzz = sum(torch.cos(k * phase) / k for k in range(1, 20))
    return 0.1 * buzz * (0.5 - 0.5 * torch.cos(2 * torch.pi * 2 * t))


@pytest.fixture(scope="module")
def vocoder():
    torch.manual_seed(0)
    made = build_vocoder(VocoderSettings(codes=64, iterations=8, latent=12, hidden=16))
    made.tokenizer.seed_from(mel_pairs(voice()), torch.Generator().manual_seed(0))
    torch.nn.init.normal_(made.tokenizer.decoder_output.weight, std=0.02)  # so that neighbours matter
    return made


def speak(vocoder, tokens, split):
    state, out = vocoder.begin(), []
    for at in range(0, len(tokens), split):
        out.append(vocoder.push(state, tokens[at : at + split], last=at + split >= len(tokens)))
    return np.concatenate(out)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 10, 11, 30])
@pytest.mark.parametrize("split", [1, 2, 7])
def test_streamed_equals_whole(vocoder, count, split):
    tokens = vocoder.tokenizer.encode(voice())[5 : 5 + count]
    whole = speak(vocoder, tokens, len(tokens))
    assert whole.dtype == np.float32 and len(whole) == 960 * count
    np.testing.assert_allclose(speak(vocoder, tokens, split), whole, atol=1e-5)


@pytest.mark.parametrize(("first", "block", "overlap"), [(1, 1, 0), (2, 3, 4), (7, 2, 3)])
def test_streamed_equals_whole_under_any_schedule(vocoder, first, block, overlap):
    schedule = {"first_tokens": first, "block_tokens": block, "overlap_tokens": overlap}
    other = build_vocoder(VocoderSettings(codes=64, iterations=4, latent=12, hidden=16, **schedule))
    other.load_state_dict(vocoder.state_dict())
    tokens = vocoder.tokenizer.encode(voice())[5:26]
    whole = speak(other, tokens, len(tokens))
    assert len(whole) == 960 * 21 and np.abs(whole).max() > 0.05
    np.testing.assert_allclose(speak(other, tokens, 2), whole, atol=1e-5)


def test_the_end_may_come_alone(vocoder):
    tokens = vocoder.tokenizer.encode(voice())
    state = vocoder.begin()
    parts = [vocoder.push(state, tokens, last=False), vocoder.push(state, tokens[:0], last=True)]
    np.testing.assert_allclose(np.concatenate(parts), speak(vocoder, tokens, len(tokens)), atol=1e-5)


def test_nothing_said_is_no_sound(vocoder):
    assert len(vocoder.push(vocoder.begin(), torch.zeros(0, dtype=torch.long), last=True)) == 0


def test_sound_comes_before_the_end_and_memory_stays_bounded(vocoder):
    tokens, settings, state = vocoder.tokenizer.encode(voice()).repeat(2), vocoder.settings, vocoder.begin()
    first = None
    for at, token in enumerate(tokens):
        if len(vocoder.push(state, token[None], last=False)) and first is None:
            first = at + 1
        assert len(state.pending) < max(settings.first_tokens, settings.block_tokens) + REACH and len(state.before) <= REACH
        assert len(state.spectrum) <= 2 * max(settings.overlap_tokens, settings.first_tokens) and len(state.tail) == 1440
    assert first == settings.first_tokens + REACH  # a token waits for its neighbours


def test_two_utterances_do_not_mix(vocoder):
    tokens = vocoder.tokenizer.encode(voice())
    a, b = vocoder.begin(), vocoder.begin()
    out_a, out_b = [], []
    for at in range(0, 60, 5):
        out_a.append(vocoder.push(a, tokens[at : at + 5], last=at == 55))
        out_b.append(vocoder.push(b, tokens.flip(0)[at : at + 5], last=at == 55))
    np.testing.assert_allclose(np.concatenate(out_a), speak(vocoder, tokens[:60], 60), atol=1e-5)
    np.testing.assert_allclose(np.concatenate(out_b), speak(vocoder, tokens.flip(0)[:60], 60), atol=1e-5)


def test_the_sound_has_the_mel_that_was_asked_for(vocoder):
    tokens = vocoder.tokenizer.encode(voice())
    plain = build_vocoder(VocoderSettings(codes=64, iterations=8, latent=12, hidden=16, sharpness=0.0))
    plain.load_state_dict(vocoder.state_dict())
    wanted, got = vocoder.tokenizer.decode(tokens), vocoder_mel(speak(plain, tokens, 3))
    loud = wanted > wanted.max() - 5
    assert (got - wanted)[loud].abs().mean() < 0.25


def test_a_recordings_own_mel_gives_its_harmonics_back():
    """Magnitudes held fixed would whisper: between the harmonics of a steady buzz there must be next to nothing."""
    time = torch.arange(48000) / 24000
    buzz = 0.1 * sum(torch.cos(2 * torch.pi * 200 * k * time) / k for k in range(1, 20))
    found = torch.from_numpy(mel_to_sound(vocoder_mel(buzz)))[12000:36000]
    power = torch.fft.rfft(found * torch.hann_window(len(found))).abs().square()  # 1 Hz a line
    lines, between = (sum(power[200 * k + at - 20 : 200 * k + at + 21].sum() for k in range(1, 5)) for at in (0, 100))
    assert between < 0.02 * lines


def test_sharpness_makes_formants_stand_out_and_speech_no_louder():
    answers = load_benchmark("nano-combination")
    loud = []
    for record in answers.records[:4]:
        plain = vocoder_mel(read_audio(answers.sound(str(record.answer.audio)), 24_000))
        sharp = sharpened(plain, 0.3)
        assert torch.equal(sharpened(plain, 0.0), plain) and (sharp.std(0) > plain.std(0)).all()
        loud.append([np.square(mel_to_sound(mel, 8)).mean() for mel in (plain, sharp)])
    before, after = np.sqrt(np.mean(loud, axis=0))
    assert after == pytest.approx(before, rel=0.25)


def test_streaming_is_as_good_as_the_whole_utterance(vocoder):
    tokens = vocoder.tokenizer.encode(voice())
    whole = build_vocoder(VocoderSettings(codes=64, iterations=8, latent=12, hidden=16, first_tokens=1000))
    whole.load_state_dict(vocoder.state_dict())
    wanted = sharpened(vocoder.tokenizer.decode(tokens), vocoder.settings.sharpness).exp()
    error = [(vocoder_mel(speak(v, tokens, 1)).exp() - wanted).norm() / wanted.norm() for v in (vocoder, whole)]
    assert error[0] < 1.25 * error[1]


def test_builds_without_memory():
    with torch.device("meta"):
        made = build_vocoder(VocoderSettings())
    assert {p.device.type for p in made.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("samples", [0, 1, 959, 960, 961, 9601])
def test_tokens_cover_the_sound(samples):
    assert SpeechTokenizer(8, 4, 4).encode(voice(1.0)[:samples].numpy()).shape == (-(-samples // 960),)


def test_a_tokens_frames_depend_on_three_neighbours_each_way(vocoder):
    tokens = vocoder.tokenizer.encode(voice())[:20]
    changed = tokens.clone()
    changed[10] = (tokens[10] + 1) % 64
    moved = (vocoder.tokenizer.decode(tokens) != vocoder.tokenizer.decode(changed)).any(0).nonzero().flatten()
    assert moved.min() == 2 * 7 and moved.max() == 2 * 13 + 1


def test_seeded_tokens_already_give_the_sound_back():
    tokenizer = SpeechTokenizer(64, 12, 8)
    pairs = mel_pairs(voice())
    tokenizer.seed_from(pairs, torch.Generator().manual_seed(0))
    again = SpeechTokenizer(64, 12, 8)
    again.seed_from(pairs, torch.Generator().manual_seed(0))
    assert torch.equal(tokenizer.codebook, again.codebook)
    wrong = tokenizer.decode(tokenizer.encode(voice())).T.reshape(-1, 160) - pairs
    assert wrong.square().mean() < 0.1 * (pairs - pairs.mean(0)).square().mean()


def test_learning_brings_the_frames_nearer_and_padding_counts_for_nothing():
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(16, 8, 16)
    pairs = mel_pairs(voice())
    tokenizer.seed_from(pairs, torch.Generator().manual_seed(0))
    batch = torch.stack([pairs[:30], torch.cat([pairs[30:50], torch.full((10, 160), 99.0)])])
    first, said = tokenizer.loss(batch, torch.tensor([30, 20]))
    assert said.shape == (2, 30, 8 + 16)
    batch[1, 20:] = -99.0
    assert tokenizer.loss(batch, torch.tensor([30, 20]))[0] == first
    optimiser = torch.optim.Adam(tokenizer.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        loss, _ = tokenizer.loss(batch, torch.tensor([30, 20]))
        loss.backward()
        optimiser.step()
    assert loss < 0.6 * first
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())


@torch.no_grad()
def test_a_token_hears_as_far_as_the_encoder_has_blocks():
    torch.manual_seed(0)
    tokenizer = SpeechTokenizer(16, 8, 16, blocks=5)
    torch.nn.init.normal_(tokenizer.encoder_output.weight)
    pairs, valid = torch.randn(1, 30, 160), torch.ones(1, 30)
    changed = pairs.clone()
    changed[0, 12] += 1.0
    moved = (tokenizer.latents(pairs, valid) != tokenizer.latents(changed, valid)).any(2)[0].nonzero().flatten()
    assert moved.tolist() == list(range(12 - 5, 12 + 6))


def test_fewer_points_than_entries_is_no_crash():
    tokenizer = SpeechTokenizer(16, 4, 4)
    tokenizer.seed_from(torch.ones(3, 160), torch.Generator().manual_seed(0))
    assert torch.isfinite(tokenizer.decode(torch.arange(16))).all()
