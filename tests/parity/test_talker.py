"""The talker's cached decoding against its own training forward, which has the numbers of the released code's (`test_talker_training`)."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from tests.parity.numbers import CLOSE
from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings, NtpSettings
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.talker import build_talker
from vocalnet_cli.core.model.talker.contract import Lengths, SpeechSampling

SIZES = dict(hidden=32, ffn=48, heads=4, projector_layers=1, decoder_layers=2, codes=30, dropout=0.0, text_chunk=3, speech_chunk=7)
TEXT = 11


def random_talker(kind: str = "mtp"):
    torch.manual_seed(0)
    talker = build_talker(MtpVocalnetSettings(**SIZES, modules=5) if kind == "mtp" else NtpSettings(**SIZES)).eval()
    with torch.no_grad():
        for parameter in talker.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)  # states that matter: at the usual start attention hardly changes anything
    return talker


def feed(talker, hidden, split: int, **options) -> list[int]:
    """Greedy tokens for text [1, L, H] given `split` rows at a time, the last of them marked as last."""
    state = talker.begin(**options)
    spoken: list[int] = []
    for start in range(0, hidden.shape[1], split):
        spoken += talker.step(state, hidden[:, start : start + split], start + split >= hidden.shape[1]).tolist()
    assert state.done
    return spoken


@contextmanager
def recorded(talker):
    """Logits of every head call, in order, by head."""
    heads = [talker.head, *(module.head for module in talker.extra)]
    calls: list[list[torch.Tensor]] = [[] for _ in heads]
    hooks = [head.register_forward_hook(lambda _m, _i, out, k=k: calls[k].append(out[0])) for k, head in enumerate(heads)]
    yield calls
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("split", [1, 5, TEXT])
@pytest.mark.parametrize("tokens_per_step", [1, 2, 3, 6])
@pytest.mark.parametrize("streaming", [True, False])
def test_decoding_equals_the_training_forward(streaming, tokens_per_step, split):
    talker = random_talker()
    with torch.no_grad():
        talker.head.bias[talker.eos] = -100.0  # speak to the limit
        for module in talker.extra:
            module.head.bias[talker.eos] = -100.0
    hidden = torch.randn(1, TEXT, SIZES["hidden"], generator=torch.Generator().manual_seed(1))
    limit = 41
    with recorded(talker) as calls:
        sampling = SpeechSampling(max_speech_tokens=limit)
        tokens = feed(talker, hidden, split, streaming=streaming, tokens_per_step=tokens_per_step, sampling=sampling)
    assert len(tokens) == limit and len(set(tokens)) > 3
    lengths = Lengths(torch.tensor([TEXT]), torch.tensor([limit]), torch.tensor([streaming]))
    with torch.no_grad():
        whole = talker.scores(hidden, torch.tensor([tokens]), lengths)
    for index, token in enumerate(tokens):
        cycle, depth = divmod(index, tokens_per_step)
        expected = whole[depth][0, cycle * tokens_per_step]  # the step's last row is that of the token just before it
        torch.testing.assert_close(calls[depth][cycle], expected, **CLOSE)
        assert token == int(expected[: SIZES["codes"]].argmax())


def test_streaming_speaks_before_the_text_is_complete_and_waits_for_it():
    talker = random_talker()
    with torch.no_grad():
        talker.head.bias[talker.eos] = -100.0
    hidden = torch.randn(1, TEXT, SIZES["hidden"])
    state = talker.begin(streaming=True, sampling=SpeechSampling(max_speech_tokens=30))
    assert len(talker.step(state, hidden[:, :2], False)) == 0
    assert len(talker.step(state, hidden[:, 2:3], False)) == SIZES["speech_chunk"] + 1  # rows SOS to 7 see the first three
    assert len(talker.step(state, None, False)) == 0 and not state.done
    assert len(talker.step(state, hidden[:, 3:6], False, limit=2)) == 2
    assert len(talker.step(state, None, False)) == SIZES["speech_chunk"] - 2
    assert len(talker.step(state, hidden[:, 6:], True)) == 30 - 1 - 2 * SIZES["speech_chunk"] and state.done
    waiting = talker.begin(streaming=False)
    assert len(talker.step(waiting, hidden, False)) == 0 and not waiting.done


def test_eos_ends_the_answer_and_special_ids_never_leave():
    talker = random_talker()
    hidden = torch.randn(1, TEXT, SIZES["hidden"])
    with torch.no_grad():
        for head in [talker.head, *(module.head for module in talker.extra)]:
            head.bias[[talker.bos, talker.sos, talker.pad]] = 1000.0
        talker.extra[1].head.bias[talker.eos] = 500.0  # the third head always ends
    state = talker.begin(tokens_per_step=6)
    tokens = talker.step(state, hidden, True)
    assert state.done and len(tokens) == 2 and int(tokens.max()) < SIZES["codes"]
    assert len(talker.step(state, None, True)) == 0


def test_ntp_is_mtp_at_one_token_a_step():
    mtp, ntp = random_talker(), random_talker("ntp")
    ntp.load_state_dict({name: tensor for name, tensor in mtp.state_dict().items() if not name.startswith("extra.")})
    hidden = torch.randn(1, TEXT, SIZES["hidden"])
    sampling = SpeechSampling(max_speech_tokens=40)
    assert feed(ntp, hidden, 4, sampling=sampling) == feed(mtp, hidden, 4, sampling=sampling)
    with pytest.raises(VocalnetError, match="tokens_per_step is 2"):
        ntp.begin(tokens_per_step=2)


def test_interleaved_answers_do_not_meet():
    talker = random_talker()
    texts = [torch.randn(1, TEXT, SIZES["hidden"], generator=torch.Generator().manual_seed(seed)) for seed in (2, 3)]
    options = [dict(tokens_per_step=3), dict(tokens_per_step=2, streaming=False)]
    for option in options:
        option["sampling"] = SpeechSampling(max_speech_tokens=40)
    apart = [feed(talker, text, 1, **option) for text, option in zip(texts, options, strict=True)]
    states = [talker.begin(**option) for option in options]
    together: list[list[int]] = [[], []]
    for row in range(TEXT):
        for spoken, state, text in zip(together, states, texts, strict=True):
            spoken += talker.step(state, text[:, row : row + 1], row == TEXT - 1).tolist()
    assert together == apart


@pytest.mark.parametrize("tokens_per_step", [1, 2, 3])
@pytest.mark.parametrize("streaming", [True, False])
def test_several_answers_at_once_are_each_alone(streaming, tokens_per_step):
    talker = random_talker()
    lengths = torch.tensor([TEXT, 4, 1, 7])
    hidden = torch.randn(len(lengths), TEXT, SIZES["hidden"], generator=torch.Generator().manual_seed(4))
    sampling = SpeechSampling(max_speech_tokens=30, repetition_penalty=1.3, repetition_window=4)
    options = dict(streaming=streaming, tokens_per_step=tokens_per_step, sampling=sampling)
    alone = [feed(talker, row[None, :n], 2, **options) for row, n in zip(hidden, lengths.tolist(), strict=True)]
    assert talker.speak(hidden, lengths, **options) == alone


@pytest.mark.parametrize("streaming", [True, False])
def test_padding_changes_nothing(streaming):
    talker = random_talker()
    hidden, speech = torch.randn(2, TEXT, SIZES["hidden"]), torch.randint(0, SIZES["codes"], (2, 20))
    lengths = Lengths(torch.tensor([TEXT, 4]), torch.tensor([20, 9]), torch.tensor([streaming] * 2))
    speech[1, 9:] = -100
    with torch.no_grad():
        batched = talker.scores(hidden, speech, lengths)
        alone = talker.scores(hidden[1:, :4], speech[1:, :9], Lengths(torch.tensor([4]), torch.tensor([9]), torch.tensor([streaming])))
    for both, one in zip(batched, alone, strict=True):
        torch.testing.assert_close(both[1, :10], one[0], **CLOSE)


def test_loss_learns_under_autocast_and_costs_nothing_on_meta():
    talker = random_talker().train()
    hidden, speech = torch.randn(2, TEXT, SIZES["hidden"]), torch.randint(0, SIZES["codes"], (2, 20))
    lengths = Lengths(torch.tensor([TEXT, 4]), torch.tensor([20, 1]), torch.tensor([True, False]))
    with torch.autocast("cpu", torch.bfloat16):
        loss = talker.loss(hidden, speech, lengths)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in talker.parameters())
    with torch.device("meta"):
        huge = build_talker(MtpVocalnetSettings())
        size = sum(p.numel() for p in huge.parameters())
        meta = Lengths(torch.ones(2, dtype=torch.long), torch.ones(2, dtype=torch.long), torch.ones(2, dtype=torch.bool))
        assert huge.loss(torch.zeros(2, 3, 2048), torch.zeros(2, 4, dtype=torch.long), meta).total.shape == ()
    assert round(size / 1e6, 1) == 832.4  # the released VocalNet-1B talker
