"""The CosyVoice2 vocoder in a stream: any schedule and any split give one masked pass over everything, and nothing is computed twice."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.cosyvoice2 import tensors, tiny_settings
from vocalnet_cli.core.audio.mel import vocoder_mel
from vocalnet_cli.core.config.schema import ModelSettings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.vocoder import Voice, build_vocoder
from vocalnet_cli.core.model.vocoder.cosyvoice2 import attention, products
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import folded
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import CausalConv1d, Memory, StreamConv1d, StreamConvTranspose1d
from vocalnet_cli.core.model.vocoder.cosyvoice2.vocoder import CosyVoice2Vocoder, Schedule

SAME, MEL, SOUND = 1e-6, 2e-5, 1e-4
"""Limits where the same sums are made, for frames made by other sums, and for sound made of the same frames."""
TOKENS = 45
BLOCK = 5
"""The tiny checkpoint's attention block."""


def make(**changes) -> CosyVoice2Vocoder:
    settings = {"first_tokens": 7, "block_tokens": 14, "steps": 3, "context": "full", **changes}
    vocoder = build_vocoder(type(tiny_settings()).model_validate(tiny_settings().model_dump() | settings))
    assert isinstance(vocoder, CosyVoice2Vocoder)
    vocoder.flow.load_state_dict(tensors("flow_tiny_weights"))
    vocoder.hift.load_state_dict(folded(tensors("hift_tiny_weights")))
    return vocoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vocoder():
    return make()


def voice(tokens: int = 12) -> Voice:
    generator = torch.Generator().manual_seed(3)
    made = torch.randint(300, (tokens,), generator=generator), torch.randn(80, 2 * tokens, generator=generator)
    return Voice(made[0], made[1].T, tensors("streaming")["embedding"][0])


def answer(count: int = TOKENS) -> torch.Tensor:
    return tensors("streaming")["token"][0].repeat(5)[:count]


def speak(vocoder, tokens, split, schedule=None, voice=None):
    """Sound of tokens pushed `split` at a time, the last ones with the end."""
    state, out = vocoder.begin(voice, schedule), []
    for at in range(0, len(tokens), split):
        out.append(vocoder.push(state, tokens[at : at + split], last=at + split >= len(tokens)))
    return np.concatenate(out)


@torch.no_grad()
def whole(vocoder, tokens, schedule, spoken=None):
    """The definition: the frames of one pass under the schedule's mask, the prompt before it in its own blocks."""
    spoken = spoken or voice(0)
    kept = len(spoken.tokens) if len(spoken.tokens) < BLOCK else len(spoken.tokens) // BLOCK * BLOCK
    cut = len(spoken.tokens) - kept
    settings = vocoder.settings
    prompt = vocoder.flow.begin(spoken.speaker, settings.steps, settings.guidance)
    if kept:
        blocks = [BLOCK] * (kept // BLOCK) or [kept]
        vocoder.flow.extend([prompt], spoken.tokens[None, cut:], blocks, spoken.mel[2 * cut :].T[None])
    state = prompt.fork()
    state.window = settings.window_tokens if settings.context == "window" else None
    blocks, index = [], 0
    while sum(blocks) < len(tokens):
        blocks.append(min(schedule.size(index), len(tokens) - sum(blocks)))
        index += 1
    return vocoder.flow.extend([state], tokens[None], blocks)


@torch.no_grad()
def sound_of(vocoder, mel):
    """All frames through HiFT at once."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.cat([torch.randn(480, 9, generator=generator) for _ in range(mel.shape[-1])])
    return vocoder.hift(mel, noise[None], Memory(), True)[0].numpy()


def assert_whole(vocoder, tokens, split, schedule, spoken=None):
    """Streamed equals whole, frames and sound. Returns the sound.

    Compared one after the other: the source's phase is an integral of the pitch, so the frames' last digits grow with time.
    """
    vocoder.begin(spoken)  # the voice is ready, so only the answer's frames are kept below
    frames = []
    extend = vocoder.flow.extend
    vocoder.flow.extend = lambda *args: frames.append(extend(*args)) or frames[-1]
    try:
        found = speak(vocoder, tokens, split, schedule, spoken)
    finally:
        del vocoder.flow.extend
    mel = torch.cat(frames, dim=-1)
    torch.testing.assert_close(mel, whole(vocoder, tokens, schedule, spoken), atol=MEL, rtol=0)
    np.testing.assert_allclose(found, sound_of(vocoder, mel), atol=SOUND)
    assert found.dtype == np.float32 and len(found) == 960 * len(tokens)
    return found


def calls_of(module, count):
    """Adds `count(inputs)` at every call of a module to the list returned."""
    seen = []
    return seen, module.register_forward_hook(lambda _module, args, _out: seen.append(count(args)))


@pytest.mark.parametrize(("first", "largest"), [(1, 1), (2, 8), (3, 5), (7, 14), (45, 45), (100, 100)])
def test_streamed_equals_one_masked_pass(vocoder, first, largest):
    schedule = Schedule(first, largest)
    found = assert_whole(vocoder, answer(), TOKENS, schedule, voice())
    assert np.abs(found).max() > 0.1
    for split in (2, 13):
        np.testing.assert_allclose(speak(vocoder, answer(), split, schedule, voice()), found, atol=SAME)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 10, 11, 22])
@pytest.mark.parametrize("prompt", [0, 3, 5])
def test_short_answers_and_one_token_ends(vocoder, count, prompt):
    schedule = Schedule(7, 14)  # 8 and 22 end in a chunk of one token
    assert_whole(vocoder, answer(count), 1, schedule, voice(prompt))


@pytest.mark.parametrize("window", [1, 6, 20])
@pytest.mark.parametrize(("first", "largest"), [(2, 5), (4, 4), (9, 14)])
def test_a_window_is_a_mask_too(first, largest, window):
    vocoder, schedule = make(context="window", window_tokens=window), Schedule(first, largest)
    assert_whole(vocoder, answer(), 4, schedule, voice())
    unbounded = whole(make(), answer(), schedule, voice())
    assert (whole(vocoder, answer(), schedule, voice()) - unbounded).abs().max() > 1e-2  # it does bound what is seen


def test_a_wide_window_is_the_full_context(vocoder):
    wide = make(context="window", window_tokens=TOKENS)
    np.testing.assert_allclose(speak(wide, answer(), 5, voice=voice()), speak(vocoder, answer(), 5, voice=voice()), atol=SAME)


@pytest.mark.parametrize("changes", [{}, {"context": "window", "window_tokens": 6}])
def test_keys_may_lie_in_many_pages(changes):
    vocoder = make(**changes)
    assert_whole(vocoder, answer(), 4, Schedule(7, 14), voice())
    state = vocoder.begin(voice())
    vocoder.push(state, answer(), last=False)
    rows = [keys.shape[-2] for keys, _ in state.flow.frames._segments(0)]
    assert rows[0] == 20 and len(rows) >= 3  # the voice in one piece


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_places_are_attended_to_at_once(dtype):
    generator = torch.Generator().manual_seed(0)
    q, keys, values = (torch.randn(2, 3, rows, 16, generator=generator).to(dtype) for rows in (5, 12, 12))
    mask = torch.arange(12) < torch.tensor([4, 4, 9, 12, 12])[:, None]  # the first rows see nothing of the last two places
    for seen in (None, mask):
        places = [torch.stack([keys[:, :, part], values[:, :, part]]) for part in (slice(0, 4), slice(4, 9), slice(9, 12))]
        wanted = attention._attend(q.float(), [(keys.float(), values.float())], seen, None)
        found = attention._attend_in_one(q * 16**-0.5, places, seen).unflatten(-1, (3, 16)).transpose(1, 2)
        torch.testing.assert_close(found.float(), wanted, atol=SAME if dtype == torch.float32 else 2e-2, rtol=0)


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 4e-2), (torch.float32, 1e-5)])
@torch.no_grad()
def test_products_are_made_anew_when_weights_change(monkeypatch, prepared, dtype, atol):
    """Laid out beforehand where oneDNN can, and never behind what the weights are."""
    if not prepared:
        monkeypatch.setattr(products, "_lays_out", lambda dtype: False)
    layer, x, y = torch.nn.Linear(8, 6).to(dtype), torch.randn(2, 5, 8).to(dtype), torch.randn(2, 5, 6).to(dtype)
    product = products.Product()
    for change in (lambda: None, lambda: layer.weight.neg_(), lambda: layer.double().to(dtype), lambda: layer.bias.zero_()):
        change()
        plain = layer(x).float()
        for then, wanted in (({}, plain), ({"onto": y}, plain + y.float()), ({"gelu": True}, torch.nn.functional.gelu(plain))):
            torch.testing.assert_close(product.linear(x, layer, **then).float(), wanted, atol=atol, rtol=0)
    again = copy.deepcopy(product)
    assert again._made is None and torch.equal(again.linear(x, layer), product.linear(x, layer))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-2), (torch.float32, 1e-5)])
@torch.no_grad()
def test_convolutions_over_rows_are_products(dtype, atol):
    conv, x = CausalConv1d(8, 6, 3).to(dtype), torch.randn(2, 9, 8).to(dtype)

    def pieces():
        memory = Memory()
        return torch.cat([conv(part, memory) for part in x.split([1, 5, 3], dim=1)], dim=1).float()

    trained = pieces()  # weights that learn: torch's convolution
    conv.requires_grad_(False)
    torch.testing.assert_close(pieces(), trained, atol=atol, rtol=0)
    torch.testing.assert_close(conv(x, Memory()).float(), trained, atol=atol, rtol=0)
    conv.weight.neg_()  # the matrix follows
    torch.testing.assert_close(pieces(), 2 * conv.bias.float() - trained, atol=atol, rtol=0)


@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_convolutions_with_prepared_weights_are_torchs(batch):
    """Learning weights go through torch's convolutions, others through oneDNN's where there is one; whole and in pieces."""
    layers = [
        StreamConv1d(6, 8, 5, left=4, right=4, dilation=2),
        StreamConv1d(6, 8, 6, left=1, right=1, stride=3),
        StreamConvTranspose1d(6, 4, 7, 3),
    ]
    for layer in layers:
        x = torch.randn(batch, 6, 30)
        wanted = layer(x, Memory())
        layer.requires_grad_(False)
        memory = Memory()
        pieces = [layer(part, memory, last) for part, last in zip(x.split([1, 9, 20], dim=-1), (False, False, True), strict=True)]
        for found in (layer(x, Memory()), layer(x.mT.contiguous().mT, Memory()), torch.cat(pieces, dim=-1)):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        layer.weight.neg_()  # what was prepared follows
        torch.testing.assert_close(layer(x, Memory()), 2 * layer.bias[:, None] - wanted, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_pitch_is_computed_in_float64_by_the_weights_there_are():
    layer, x = StreamConv1d(4, 4, 3, left=1, right=1).requires_grad_(False), torch.randn(1, 4, 9, dtype=torch.float64)
    for change in (lambda: None, lambda: layer.weight.mul_(2)):
        change()
        wanted = torch.nn.functional.conv1d(x, layer.weight.double(), layer.bias.double(), padding=1)
        torch.testing.assert_close(layer(x, Memory()), wanted, atol=1e-12, rtol=0)


def test_the_2024_release_streams_too():
    assert_whole(make(release="2024"), answer(), 4, Schedule(7, 14), voice())


def test_the_end_may_come_alone(vocoder):
    state = vocoder.begin(voice())
    parts = [vocoder.push(state, answer(), last=False), vocoder.push(state, answer(0), last=True)]
    np.testing.assert_allclose(np.concatenate(parts), speak(vocoder, answer(), TOKENS, voice=voice()), atol=SAME)
    assert len(vocoder.push(vocoder.begin(), answer(0), last=True)) == 0


def test_no_frame_is_computed_twice(vocoder):
    state = vocoder.begin(voice())
    estimated, hook = calls_of(vocoder.flow.estimator, lambda args: args[0].shape[-1])
    heard, other = calls_of(vocoder.hift.conv_pre, lambda args: args[0].shape[-1])
    for token in answer():
        vocoder.push(state, token[None], last=False)
    vocoder.push(state, answer(0), last=True)
    hook.remove()
    other.remove()
    assert sum(estimated) == vocoder.settings.steps * 2 * TOKENS
    assert sum(heard) == 2 * TOKENS


def test_a_voice_is_computed_once():
    vocoder = make()
    estimated, hook = calls_of(vocoder.flow.estimator, lambda args: args[0].shape[-1])
    first = vocoder.begin(voice())
    assert sum(estimated) == vocoder.settings.steps * 2 * 10  # 12 tokens, cut to two blocks of 5
    second = vocoder.begin(voice(), Schedule(3, 6))  # the same content in other tensors
    assert sum(estimated) == vocoder.settings.steps * 2 * 10
    assert second.flow.tokens.shared is first.flow.tokens.shared and second.flow.nbytes == 0
    vocoder.begin(voice(17))
    vocoder.flow.encoder_proj.bias += 1  # other weights, other activations
    vocoder.begin(voice())
    hook.remove()
    assert sum(estimated) == vocoder.settings.steps * 2 * (10 + 15 + 10)


@pytest.mark.parametrize("changes", [{}, {"context": "window", "window_tokens": 6}])
def test_nothing_is_kept_of_the_last_chunk(changes):
    vocoder = make(**changes)
    at_once = vocoder.begin(voice(), Schedule(TOKENS, TOKENS))
    assert len(vocoder.push(at_once, answer(), last=True)) == 960 * TOKENS and at_once.flow.nbytes == 0
    state = vocoder.begin(voice(), Schedule(7, 14))
    vocoder.push(state, answer()[:-1], last=False)
    before = state.flow.nbytes
    vocoder.push(state, answer()[-1:], last=True)
    assert state.flow.nbytes == before > 0 and state.flow.position == 10 + TOKENS


def test_a_window_bounds_memory():
    vocoder = make(context="window", window_tokens=10, first_tokens=5, block_tokens=5, steps=1)
    state, sizes = vocoder.begin(voice()), []
    for at in range(0, 200, 5):
        vocoder.push(state, answer(200)[at : at + 5], last=False)
        sizes.append(state.flow.nbytes)
    assert sizes[-1] == sizes[10] > 0
    assert len(state.flow.tokens.positions) == 10 + 10 + 5


def test_conversations_do_not_mix(vocoder):
    """Two at once, each with its own voice and schedule, alone and as a batch."""
    ways = [(voice(), Schedule(7, 14)), (voice(5), Schedule(3, 5)), (None, Schedule(7, 14)), (voice(), Schedule(7, 14))]
    said = [answer(), answer().flip(0), answer(30), answer(30).roll(7)]
    alone = [speak(vocoder, tokens, 5, schedule, who) for tokens, (who, schedule) in zip(said, ways, strict=True)]
    states = [vocoder.begin(who, schedule) for who, schedule in ways]
    calls, hook = calls_of(vocoder.flow.estimator, lambda args: len(args[0]))
    pieces = [[] for _ in ways]
    for at in range(0, TOKENS, 5):
        live = [i for i, tokens in enumerate(said) if at < len(tokens)]
        ends = [at + 5 >= len(said[i]) for i in live]
        for i, piece in zip(live, vocoder.push_many([states[i] for i in live], [said[i][at : at + 5] for i in live], ends), strict=True):
            pieces[i].append(piece)
    hook.remove()
    assert max(calls) == 2 * 3, "chunks of equal size share a call, two rows each"
    for parts, wanted in zip(pieces, alone, strict=True):
        np.testing.assert_allclose(np.concatenate(parts), wanted, atol=10 * SOUND)  # other sums, through the phase


@pytest.mark.parametrize("lookahead", [0, 1, 5, 12, 19, 25])
def test_less_lookahead_is_earlier_sound(lookahead):
    vocoder = make(lookahead_frames=lookahead, first_tokens=14, block_tokens=14)
    exact = speak(make(first_tokens=14, block_tokens=14), answer(), 3, voice=voice())
    found = speak(vocoder, answer(), 3, voice=voice())
    assert len(found) == len(exact)
    np.testing.assert_allclose(found, speak(vocoder, answer(), 1, voice=voice()), atol=SAME)
    first = vocoder.push(vocoder.begin(voice()), answer(17), last=False)
    assert len(first) == (480 * (28 - lookahead) if lookahead < 20 else 480 * 8 + 120)
    error = np.abs(found - exact)
    assert error[: 480 * 8].max() < SAME  # frames whose whole context was there are exact
    if lookahead >= 20:
        assert error.max() < SAME


@pytest.mark.parametrize("lookahead", [None, 2])
def test_a_held_mel_is_nearer_and_comes_in_any_pieces(lookahead):
    """Four frames later; however the tokens come."""
    knobs = {"lookahead_frames": lookahead, "first_tokens": 14, "block_tokens": 14}
    plain, held = make(**knobs), make(**knobs, hold_mel=True)
    sounds = [speak(held, answer(), split, voice=voice()) for split in (1, 3, TOKENS)]
    for sound in sounds[1:]:
        np.testing.assert_allclose(sound, sounds[0], atol=SAME)
    given = [len(vocoder.push(vocoder.begin(voice()), answer(17), last=False)) for vocoder in (plain, held)]
    assert given[0] > given[1] >= given[0] - 4 * 480
    state = held.begin(voice())
    mel = held.flow.extend([state.flow], answer()[None], held.chunks(TOKENS))[0]
    errors = [
        float((vocoder_mel(torch.from_numpy(sound)) - mel).abs().mean()) for sound in (speak(plain, answer(), 3, voice=voice()), sounds[0])
    ]
    assert errors[1] < 0.7 * errors[0], errors


@pytest.mark.parametrize("steps", [1, 4, 10])
@pytest.mark.parametrize("guidance", [0.0, 0.7])
def test_work_follows_the_knobs(steps, guidance):
    vocoder = make(steps=steps, guidance=guidance, first_tokens=45, block_tokens=45)
    state = vocoder.begin(voice())
    rows, hook = calls_of(vocoder.flow.estimator, lambda args: len(args[0]))
    vocoder.push(state, answer(), last=True)
    hook.remove()
    assert rows == [2 if guidance else 1] * steps


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_close(dtype, vocoder):
    half = make(flow_dtype=dtype)
    assert {p.dtype for p in half.hift.parameters()} == {torch.float32}
    mels = []
    for made in (half, vocoder):
        state = made.begin(voice())
        with torch.no_grad():
            mels.append(made.flow.extend([state.flow], answer()[None], [15, 15, 15]))
    assert mels[0].dtype == torch.float32
    assert (mels[0] - mels[1]).norm() / mels[1].norm() < 2e-2
    sound = speak(half, answer(), 4, voice=voice())
    assert np.isfinite(sound).all() and len(sound) == 960 * TOKENS


def test_what_does_not_fit_is_told(vocoder):
    good = voice()
    with pytest.raises(ValueError, match="do not go with a mel"):
        Voice(good.tokens, good.mel.T, good.speaker)
    with pytest.raises(VocalnetError, match="a voice of"):
        vocoder.begin(Voice(good.tokens, good.mel, good.speaker[1:]))
    with pytest.raises(VocalnetError, match="speech token 300 is outside"):
        vocoder.push(vocoder.begin(), torch.tensor([5, 300]), last=False)
    with pytest.raises(VocalnetError, match="no speech tokenizer"):
        _ = vocoder.tokenizer


def test_recipes_name_the_kind():
    talker = {"kind": "ntp", "codes": 6561}
    made = ModelSettings.model_validate({"talker": talker, "vocoder": {"kind": "cosyvoice2", "steps": 5}})
    with torch.device("meta"):
        assert build_vocoder(made.vocoder).settings.steps == 5
    assert ModelSettings.model_validate(made.model_dump(mode="json")) == made
