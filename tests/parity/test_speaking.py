"""Speech tokens: every saved run of the released code, token for token, and what `released` makes of the same runs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch

from tests.parity.numbers import CLOSE, arrays, cases, read_json, talker_of
from vocalnet_cli.core.model.talker.contract import SpeechSampling, Talker

FILE = "talker_infer.json"
ABOUT = read_json(FILE)
WHOLE = [pytest.param(i, name, id=f"{i}-{name}") for i, case in enumerate(ABOUT.get("cases", [])) for name in case["runs"]]
STREAMED = [
    pytest.param(i, j, id=f"{i}-n{run['kwargs']['infer_mtp_token_num']}-penalty{run['kwargs'].get('penalty', 'default')}")
    for i, case in enumerate(ABOUT.get("streaming_cases", []))
    for j, run in enumerate(case["runs"])
]
SAVED = arrays("talker_infer_inputs.npz") if ABOUT else {}
PENALTY = 2.0
WINDOW = {"predict": 0, "predict_mtp": 5, "streaming": 6}
"""The released code's defaults (fixtures' README, section B)."""


@lru_cache(maxsize=2)
def talker(compat: str) -> Talker:
    return talker_of(ABOUT["config"], ABOUT["state_file"], compat)


def sampling(method: str, kwargs: dict[str, Any]) -> SpeechSampling:
    assert kwargs["top_k"] == 1, "greedy"
    return SpeechSampling(
        repetition_penalty=kwargs.get("penalty", PENALTY),
        repetition_window=kwargs.get("penalty_window_size", WINDOW[method]),
        # `predict` counts new tokens, the others SOS too.
        max_speech_tokens=kwargs["max_tokens"] + (method == "predict"),
    )


@pytest.mark.parametrize("case, name", cases(WHOLE, FILE, 2))
def test_a_whole_answer(case, name):
    run = ABOUT["cases"][case]["runs"][name]
    hidden = SAVED[ABOUT["cases"][case]["input"]]
    per_step = run["kwargs"].get("infer_mtp_token_num", 0) + 1
    state = talker("official").begin(1, False, per_step, sampling(run["method"], run["kwargs"]))
    tokens = talker("official").step(state, hidden, True).tolist()
    assert [talker("official").sos, *tokens] == run["tokens"]
    # Without the defects the codes are the same: special ids stay inside, and the limit is exact.
    ours = talker("released")
    fixed = ours.speak(hidden, torch.tensor([hidden.shape[1]]), False, per_step, sampling(run["method"], run["kwargs"]))[0]
    codes = [token for token in tokens[: run["kwargs"]["max_tokens"]] if token < ours.bos]
    assert fixed[: len(codes)] == codes  # SOS does not count against the limit, so one more may follow


@pytest.mark.parametrize("case, index", cases(STREAMED, FILE, 2))
def test_a_streamed_answer(case, index):
    about = ABOUT["streaming_cases"][case]
    run = about["runs"][index]
    hidden, end = (SAVED[about[name]] for name in ("llm_hidden", "txt_eos_emb"))
    per_step = run["kwargs"]["infer_mtp_token_num"] + 1
    chosen = sampling("streaming", run["kwargs"])
    official, released = talker("official"), talker("released")
    state, fixed = official.begin(1, True, per_step, chosen), released.begin(1, True, per_step, chosen)
    chunks, codes = [], []
    for chunk in about["chunks"]:
        states = None if chunk["start"] is None else hidden[:, chunk["start"] : chunk["end"]]
        if chunk["append_txt_eos"]:
            states = torch.cat([states, end], dim=1)
        chunks.append(official.step(state, states, chunk["is_last"]).tolist())
        codes += released.step(fixed, states, chunk["is_last"]).tolist()
    assert chunks == run["chunk_tokens"]
    assert [official.sos, *sum(chunks, [])] == run["all_generated_tokens"]
    if per_step > 1 and ABOUT["config"]["speech_token_num"] % per_step:
        return  # a chunk ends inside a step: the released code then reads tokens twice
    until = next((i for i, chunk in enumerate(chunks) if official.eos in chunk), len(chunks))
    expected = [t for t in sum(chunks[: until + 1], [])[: run["kwargs"]["max_tokens"]] if t < official.bos]
    assert codes[: len(expected)] == expected


@pytest.mark.parametrize("case", cases(list(range(len(ABOUT.get("cases", [])))), FILE))
def test_several_answers_at_once_are_each_alone(case):
    """Texts of different lengths in one batch, both modes, under `released`."""
    ours = talker("released")
    texts = [SAVED[about["input"]] for about in ABOUT["cases"][case:]]
    lengths = torch.tensor([text.shape[1] for text in texts])
    batch = torch.nn.utils.rnn.pad_sequence([text[0] for text in texts], batch_first=True)
    for streaming in (True, False):
        chosen = SpeechSampling(repetition_penalty=PENALTY, repetition_window=6, max_speech_tokens=40)
        alone = []
        for text in texts:
            state = ours.begin(1, streaming, 3, chosen)
            pieces = text.split(ours.settings.text_chunk, dim=1)
            alone.append(sum((ours.step(state, p, i == len(pieces) - 1).tolist() for i, p in enumerate(pieces)), []))
        assert ours.speak(batch, lengths, streaming, 3, chosen) == alone


@pytest.mark.parametrize("case, name", cases([p for p in WHOLE if f"case{p.values[0]}.{p.values[1]}.step_head" in SAVED], FILE, 2))
def test_scores_of_the_first_steps(case, name):
    """The raw logits of each head, before any penalty."""
    heads, logits = (SAVED[f"case{case}.{name}.{what}"] for what in ("step_head", "step_logits"))
    ours = talker("official")
    seen: list[tuple[int, torch.Tensor]] = []
    modules = [ours.head, *(module.head for module in ours.extra)]
    hooks = [m.register_forward_hook(lambda _m, _i, out, k=k: seen.append((k, out[0]))) for k, m in enumerate(modules)]
    try:
        run = ABOUT["cases"][case]["runs"][name]
        state = ours.begin(1, False, run["kwargs"].get("infer_mtp_token_num", 0) + 1, sampling(run["method"], run["kwargs"]))
        ours.step(state, SAVED[ABOUT["cases"][case]["input"]], True)
    finally:
        for hook in hooks:
            hook.remove()
    assert [head for head, _ in seen] == heads.tolist()
    torch.testing.assert_close(torch.stack([scores for _, scores in seen]), logits, **CLOSE)
