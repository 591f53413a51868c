"""Every talker that speaks from left to right: cached decoding against its own training forward, and what all of them owe."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from tests.parity.numbers import CLOSE
from vocalnet_cli.core.config.mistakes import KINDS
from vocalnet_cli.core.config.talker_schema import (
    GroupLinearSettings,
    GroupTransSettings,
    MtpDeepseekSettings,
    MtpParallelLinearSettings,
    MtpVocalnetSettings,
    NtpSettings,
)
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.talker import TALKERS, build_talker
from vocalnet_cli.core.model.talker.contract import Lengths, SpeechSampling

SIZES = dict(hidden=32, ffn=48, heads=4, projector_layers=1, decoder_layers=2, codes=30, dropout=0.0, text_chunk=3, speech_chunk=7)
TEXT = 11
TALKER = {
    "ntp": NtpSettings(**SIZES),
    "group-linear": GroupLinearSettings(**SIZES, group=3),  # no divisor of the chunk: groups lie across its edges
    "group-linear-7": GroupLinearSettings(**SIZES, group=7),
    "group-trans": GroupTransSettings(**SIZES, group=4),
    "mtp-parallel-linear": MtpParallelLinearSettings(**SIZES, modules=5),
    "mtp-deepseek": MtpDeepseekSettings(**SIZES, modules=5),
    "mtp-deepseek-own-heads": MtpDeepseekSettings(**SIZES, modules=2, shared_head=False),
    "mtp-vocalnet": MtpVocalnetSettings(**SIZES, modules=5),
}
MULTI = [name for name, settings in TALKER.items() if settings.step_sizes[-1] > 1]
STEPS = [(name, tokens) for name, settings in TALKER.items() for tokens in settings.step_sizes if tokens in (1, 2, 3, 6)]
STEPS += [(name, TALKER[name].group) for name in ("group-linear-7", "group-trans")]


def random_talker(name: str):
    torch.manual_seed(0)
    talker = build_talker(TALKER[name]).eval()
    with torch.no_grad():
        for parameter in talker.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)  # states that matter: at the usual start attention hardly changes anything
    return talker


def text(rows: int = TEXT, batch: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, rows, SIZES["hidden"], generator=torch.Generator().manual_seed(seed))


def feed(talker, hidden, split: int, **options) -> list[int]:
    """Greedy tokens for text [1, L, H] given `split` rows at a time, the last of them marked as last."""
    state = talker.begin(**options)
    spoken: list[int] = []
    for start in range(0, hidden.shape[1], split):
        spoken += talker.step(state, hidden[:, start : start + split], start + split >= hidden.shape[1]).tolist()
    assert state.done
    return spoken


def prefer(talker, token: int, amount: float, place: int | None = None) -> None:
    """Raise the score of a token, in one place of each step or in all of them."""
    real = talker.predict

    def predict(depth, states, count):
        scores = real(depth, states, count).clone()
        alone = scores.shape[-2] == 1
        if place is None or (alone and depth == place):
            scores[..., token] += amount
        elif not alone:
            scores[..., place, token] += amount
        return scores

    talker.predict = predict


@contextmanager
def recorded(talker):
    """Scores [V] of each token drawn, in order."""
    drawn: list[torch.Tensor] = []
    real = talker.predict

    def predict(depth, states, count):
        scores = real(depth, states, count)
        drawn.extend(scores[0])
        return scores

    talker.predict = predict
    yield drawn
    talker.predict = real


def test_every_kind_has_settings_and_a_class_and_is_tested_here():
    assert set(TALKERS) == set(KINDS["talker"])
    assert {settings.kind for settings in TALKER.values()} == set(TALKERS) - {"mdm"}  # blocks have tests of their own


@pytest.mark.parametrize("split", [1, 5, TEXT])
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("name", "tokens_per_step"), STEPS)
def test_decoding_equals_the_training_forward(name, tokens_per_step, streaming, split):
    talker = random_talker(name)
    prefer(talker, talker.eos, -100.0)  # speak to the limit
    limit = 41
    with recorded(talker) as drawn:
        sampling = SpeechSampling(max_speech_tokens=limit)
        tokens = feed(talker, text(), split, streaming=streaming, tokens_per_step=tokens_per_step, sampling=sampling)
    assert len(tokens) == limit and len(set(tokens)) > 3
    lengths = Lengths(torch.tensor([TEXT]), torch.tensor([limit]), torch.tensor([streaming]))
    with torch.no_grad():
        whole = talker.scores(text(), torch.tensor([tokens]), lengths)
    for index, token in enumerate(tokens):
        step, place = divmod(index, tokens_per_step)
        expected = whole[place][0, step * tokens_per_step // talker.group]  # a step's tokens follow from the row just before them
        torch.testing.assert_close(drawn[index], expected, **CLOSE)
        assert token == int(expected[: SIZES["codes"]].argmax())


@pytest.mark.parametrize("name", TALKER)
def test_streaming_speaks_before_the_text_is_complete_and_waits_for_it(name):
    talker = random_talker(name)
    prefer(talker, talker.eos, -100.0)
    size = talker.settings.step_sizes[0]
    chunk = SIZES["speech_chunk"]

    def ready(chunks: int) -> int:
        """Tokens that the rows of so many chunks give: a step may begin as long as the row before it lies in them."""
        return (chunks * chunk // size + 1) * size

    state = talker.begin(streaming=True, tokens_per_step=size, sampling=SpeechSampling(max_speech_tokens=30))
    assert len(talker.step(state, text()[:, :2], False)) == 0
    assert len(talker.step(state, text()[:, 2:3], False)) == ready(1)  # rows SOS to 7 see the first three
    assert len(talker.step(state, None, False)) == 0 and not state.done
    assert len(talker.step(state, text()[:, 3:6], False, limit=1)) == size
    assert len(talker.step(state, None, False)) == ready(2) - ready(1) - size
    assert len(talker.step(state, text()[:, 6:], True)) == 30 - ready(2) and state.done
    waiting = talker.begin(streaming=False, tokens_per_step=size)
    assert len(talker.step(waiting, text(), False)) == 0 and not waiting.done


@pytest.mark.parametrize("name", MULTI)
def test_eos_inside_a_step_ends_the_answer_and_special_ids_never_leave(name):
    talker = random_talker(name)
    size = talker.settings.step_sizes[-1]
    for special in (talker.bos, talker.sos, talker.pad):
        prefer(talker, special, 1000.0)
    prefer(talker, talker.eos, -500.0)
    for place in range(1, size):
        prefer(talker, talker.eos, 1000.0, place)
        state = talker.begin(tokens_per_step=size)
        tokens = talker.step(state, text(), True)
        assert state.done and len(tokens) == place and int(tokens.max()) < SIZES["codes"]
        assert len(talker.step(state, None, True)) == 0
        assert talker.speak(text(), torch.tensor([TEXT]), True, size) == [tokens.tolist()]
        prefer(talker, talker.eos, -1000.0, place)


def test_ntp_is_mtp_at_one_token_a_step():
    mtp, ntp = random_talker("mtp-vocalnet"), random_talker("ntp")
    ntp.load_state_dict({name: tensor for name, tensor in mtp.state_dict().items() if not name.startswith("extra.")})
    sampling = SpeechSampling(max_speech_tokens=40)
    assert feed(ntp, text(), 4, sampling=sampling) == feed(mtp, text(), 4, sampling=sampling)


@pytest.mark.parametrize("name", TALKER)
def test_a_step_the_talker_cannot_take_is_refused(name):
    talker = random_talker(name)
    for tokens in {0, 1, 2, talker.settings.step_sizes[-1] + 1} - set(talker.settings.step_sizes):
        with pytest.raises(VocalnetError, match=f"tokens_per_step is {tokens}: "):
            talker.begin(tokens_per_step=tokens)


@pytest.mark.parametrize("name", TALKER)
def test_interleaved_answers_do_not_meet(name):
    talker = random_talker(name)
    texts = [text(seed=seed) for seed in (2, 3)]
    sizes = talker.settings.step_sizes
    options = [dict(tokens_per_step=sizes[-1]), dict(tokens_per_step=sizes[0], streaming=False)]
    for option in options:
        option["sampling"] = SpeechSampling(max_speech_tokens=40)
    apart = [feed(talker, text, 1, **option) for text, option in zip(texts, options, strict=True)]
    states = [talker.begin(**option) for option in options]
    together: list[list[int]] = [[], []]
    for row in range(TEXT):
        for spoken, state, hidden in zip(together, states, texts, strict=True):
            spoken += talker.step(state, hidden[:, row : row + 1], row == TEXT - 1).tolist()
    assert together == apart


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("name", "tokens_per_step"), STEPS)
def test_several_answers_at_once_are_each_alone(name, tokens_per_step, streaming):
    talker = random_talker(name)
    lengths = torch.tensor([TEXT, 4, 1, 7])
    hidden = text(batch=len(lengths), seed=4)
    sampling = SpeechSampling(max_speech_tokens=30, repetition_penalty=1.3, repetition_window=4)
    options = dict(streaming=streaming, tokens_per_step=tokens_per_step, sampling=sampling)
    alone = [feed(talker, row[None, :n], 2, **options) for row, n in zip(hidden, lengths.tolist(), strict=True)]
    assert talker.speak(hidden, lengths, **options) == alone


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", TALKER)
def test_padding_changes_nothing(name, streaming):
    talker = random_talker(name)
    hidden, speech = text(batch=2), torch.randint(0, SIZES["codes"], (2, 20))
    lengths = Lengths(torch.tensor([TEXT, 4]), torch.tensor([20, 9]), torch.tensor([streaming] * 2))
    speech[1, 9:] = -100
    with torch.no_grad():
        batched = talker.scores(hidden, speech, lengths)
        alone = talker.scores(hidden[1:, :4], speech[1:, :9], Lengths(torch.tensor([4]), torch.tensor([9]), torch.tensor([streaming])))
    for head, (both, one) in enumerate(zip(batched, alone, strict=True)):
        scored = (9 - head) // talker.group + 1  # rows whose target in this place is a token or EOS
        torch.testing.assert_close(both[1, :scored], one[0, :scored], **CLOSE)


@pytest.mark.parametrize("name", TALKER)
def test_the_loss_is_that_of_the_tokens_and_the_end(name):
    """Token by token from the scores; then nothing of what follows the end, whatever stands there."""
    talker = random_talker(name)
    speech, counts = torch.randint(0, SIZES["codes"], (2, 20)), [20, 8]
    lengths = Lengths(torch.tensor([TEXT, 4]), torch.tensor(counts), torch.tensor([True, False]))
    with torch.no_grad():
        loss, scores = talker.loss(text(batch=2), speech, lengths), talker.scores(text(batch=2), speech, lengths)
        speech[1, 8:] = -100
        again = talker.loss(text(batch=2), speech, lengths)
    heads: list[list[float]] = [[] for _ in scores]
    for sample, count in enumerate(counts):
        said = [*speech[sample, :count].tolist(), talker.eos]
        for index, token in enumerate(said):
            for head, of in enumerate(scores):
                row, rest = divmod(index - head, talker.group)
                if row >= 0 and not rest:
                    heads[head].append(-float(of[sample, row].log_softmax(-1)[token]))
    means = [sum(head) / len(head) for head in heads]
    assert [float(head) for head in loss.heads] == pytest.approx(means, rel=1e-5)
    whole = sum(sum(head) for head in heads) / sum(len(head) for head in heads)
    decayed = sum(talker.loss_decay**k * mean for k, mean in enumerate(means))
    assert float(loss.total) == pytest.approx(whole if talker.group > 1 else decayed, rel=1e-5)
    assert float(again.total) == float(loss.total)


@pytest.mark.parametrize("name", TALKER)
def test_gradients_reach_every_parameter_under_autocast(name):
    talker = random_talker(name).train()
    hidden, speech = text(batch=2), torch.randint(0, SIZES["codes"], (2, 20))
    lengths = Lengths(torch.tensor([TEXT, 4]), torch.tensor([20, 1]), torch.tensor([True, False]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = talker.loss(hidden, speech, lengths)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    for parameter, tensor in talker.named_parameters():
        assert tensor.grad is not None and bool(tensor.grad.isfinite().all()) and bool(tensor.grad.any()), parameter


@pytest.mark.parametrize("name", TALKER)
def test_two_answers_learned_by_heart_are_said(name):
    torch.manual_seed(0)
    talker = build_talker(TALKER[name])
    optimiser = torch.optim.Adam(talker.parameters(), lr=1e-2)
    hidden, rows, counts = text(6, batch=2), torch.tensor([6, 2]), torch.tensor([9, 5])
    speech = torch.randint(0, SIZES["codes"], (2, 9))
    for number in range(40):
        optimiser.zero_grad()
        talker.loss(hidden, speech, Lengths(rows, counts, torch.tensor([number % 2 == 0] * 2))).total.backward()
        optimiser.step()
    expected = [row[:count].tolist() for row, count in zip(speech, counts.tolist(), strict=True)]
    for streaming in (True, False):
        for size in {talker.settings.step_sizes[0], talker.settings.step_sizes[-1]}:
            assert talker.speak(hidden, rows, streaming, size, SpeechSampling(max_speech_tokens=20)) == expected


@pytest.mark.parametrize("settings", [settings.__class__ for settings in TALKER.values()], ids=TALKER)
def test_full_size_costs_nothing_on_meta(settings):
    with torch.device("meta"):
        huge = build_talker(settings())
        meta = Lengths(torch.ones(2, dtype=torch.long), torch.ones(2, dtype=torch.long), torch.ones(2, dtype=torch.bool))
        assert huge.loss(torch.zeros(2, 3, 2048), torch.zeros(2, 4, dtype=torch.long), meta).total.shape == ()
    if settings is MtpVocalnetSettings:
        assert round(sum(p.numel() for p in huge.parameters()) / 1e6, 1) == 832.4  # the released VocalNet-1B talker
