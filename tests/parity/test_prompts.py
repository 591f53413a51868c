"""Prompts, id by id, as the released code builds them (fixtures E): its inference and its training conversations."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.parity.numbers import cases, read_json
from vocalnet_cli.core.model.prompt import END_OF_TURN, SPEECH, TEXT_END, render_prompt, special_id

FILE = "prompts.json"
ABOUT = read_json(FILE)
CASES = {case["name"]: case for case in ABOUT.get("cases", [])}


def stand_in(template: str) -> PreTrainedTokenizerFast:
    """The fixtures' tokenizer: special tokens, then pieces of a regular expression; its ids are the file's."""
    about = ABOUT["stand_in_tokenizer"]
    special = about["special_tokens"]["llama" if template.startswith("llama") else "qwen"]
    inner = Tokenizer(models.WordLevel(about["vocab"][template], unk_token=special[0]))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(about["regex"]), behavior="isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], extra_special_tokens=special)
    tokenizer.chat_template = ABOUT["chat_templates"][template]
    return tokenizer


def messages(conversation: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]} for turn in conversation]


@pytest.mark.parametrize("name", cases(list(CASES), FILE))
def test_ids_of_a_conversation(name):
    case = CASES[name]
    template, purpose, _ = re.fullmatch(r"(\w+[\d.]+)\.(train|inference)\.(\w+)", name).groups()
    family = "llama" if template.startswith("llama") else "qwen2"
    tokenizer = stand_in(template)
    turns = messages(case["conversation"])
    answer = turns.pop()["content"] if purpose == "train" else ""
    *history, question = turns
    compat = "released" if purpose == "inference" else "paper"
    prompt = render_prompt(tokenizer, family, None, question["content"], history, compat)
    assert any(SPEECH in turn["content"] for turn in turns)
    ids = [*prompt.before, ABOUT["ids"]["speech_placeholder"], *prompt.after]
    if purpose == "inference":
        family_ids = ABOUT["ids"]["llama" if family == "llama" else "qwen"]
        tail = family_ids["inference_tail"]
        assert ids == (case["input_ids"] if case["input_ids"][-len(tail) :] == tail else case["input_ids"] + tail)
        return
    end = [special_id(tokenizer, END_OF_TURN[family])]
    if family == "qwen2":
        end.append(special_id(tokenizer, TEXT_END[family]))  # equals the padding, so it is masked before the thinker sees it
    said = [*tokenizer(answer, add_special_tokens=False)["input_ids"], *end]
    assert ids + said == case["input_ids"]
    assert case["labels"] == [ABOUT["ids"]["ignore_index"]] * len(ids) + said


def test_qwen3_answers_without_thinking_aloud():
    """Qwen3's template opens a block of thoughts unless told not to; ours closes it at once."""
    inner = Tokenizer(models.WordLevel({"x": 0, "<|im_end|>": 1}, unk_token="x"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    )
    seen: list[str] = []
    tokenizer.__class__ = type(
        "Spy", (PreTrainedTokenizerFast,), {"__call__": lambda self, text, **_: seen.append(text) or {"input_ids": [0]}}
    )
    render_prompt(tokenizer, "qwen3", "Be brief.")
    assert "".join(seen) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
