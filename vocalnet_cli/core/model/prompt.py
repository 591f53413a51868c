"""Prompts: the chat template of each LLM family, with the place where speech is spliced in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.compat import RULES

SPEECH = "<speech>"
SYSTEM_PROMPT = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user provides, "
    "and assist the user with a variety of tasks using natural language and speech."
)
_QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. " + SYSTEM_PROMPT
DEFAULT_SYSTEM = {"llama": SYSTEM_PROMPT, "qwen2": _QWEN_SYSTEM, "qwen3": _QWEN_SYSTEM}
LLAMA_DATE = "26 Jul 2024"
"""Date the released Llama models were trained with; today's date would change the prompt daily (vocalnet.md section 3.1)."""

END_OF_TURN = {"llama": "<|eot_id|>", "qwen2": "<|im_end|>", "qwen3": "<|im_end|>"}
TEXT_END = {"llama": "<|eot_id|>", "qwen2": "<|endoftext|>", "qwen3": "<|endoftext|>"}
"""Token whose embedding tells the talker that the text is complete."""

STOPS = {
    "llama": ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    "qwen2": ("<|im_end|>", "<|endoftext|>"),
    "qwen3": ("<|im_end|>", "<|endoftext|>"),
}
SENTENCE_ENDS = (".", "?", "!", ",")
"""Tokens after which the released code may cut a long answer (vocalnet.md section 6.2)."""


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the speech of the last user turn, up to and including the assistant's header."""

    before: list[int]
    after: list[int]


def special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Id of a special token, asked by name. Raises VocalnetError when the tokenizer does not know it."""
    found = _known_id(tokenizer, token)
    if found is None:
        raise VocalnetError(
            f"the tokenizer has no token {token!r}",
            "Check that model.thinker.family in the recipe fits the tokenizer (llama, qwen2 or qwen3).",
        )
    return found


def _known_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Id of exactly this token; none if the tokenizer would read something else for it."""
    found = tokenizer.convert_tokens_to_ids(token)
    return found if isinstance(found, int) and tokenizer.convert_ids_to_tokens(found) == token else None


def stop_ids(tokenizer: PreTrainedTokenizerBase, family: str) -> frozenset[int]:
    """Ids that end an answer; only those the tokenizer has."""
    return frozenset(i for token in STOPS[family] if (i := _known_id(tokenizer, token)) is not None)


def sentence_end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that are exactly one of `SENTENCE_ENDS`; " ." and ".\\n" are others."""
    return frozenset(i for token in SENTENCE_ENDS if (i := _known_id(tokenizer, token)) is not None)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    family: str,
    system_prompt: str | None,
    question: str = SPEECH,
    history: list[dict] | None = None,
    compat: str = "paper",
) -> Prompt:
    """The tokenizer's chat template around `question`, cut where `<speech>` stands.

    `question` holds `<speech>` at most once; without it, `after` is empty and `before` is the whole text prompt.
    See `render_turns` for the rest.
    """
    messages = [*(history or []), {"role": "user", "content": question}]
    before, *after = render_turns(tokenizer, family, system_prompt, messages, compat)
    return Prompt(before, after[0] if after else [])


def render_turns(
    tokenizer: PreTrainedTokenizerBase, family: str, system_prompt: str | None, messages: list[dict], compat: str = "paper"
) -> list[list[int]]:
    """Ids of the tokenizer's chat template of `messages`, the last the user's, up to the assistant's header; cut at every `<speech>`.

    An empty `system_prompt` leaves the system message out. Llama's date is pinned, and Qwen3 answers without thinking aloud.
    Under `released`, a Qwen prompt has `<|endoftext|>` after the user's last turn, as the released scripts write it.
    """
    system = DEFAULT_SYSTEM[family] if system_prompt is None else system_prompt
    messages = [*([{"role": "system", "content": system}] if system else []), *messages]

    def rendered(header: bool) -> str:
        options: dict[str, Any] = {"date_string": LLAMA_DATE, "enable_thinking": False}
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header, **options))

    text = rendered(header=True)
    if RULES[compat].text_end_in_prompt and TEXT_END[family] != END_OF_TURN[family]:
        turns = rendered(header=False)
        closed = turns.rstrip("\n")
        text = closed + TEXT_END[family] + turns[len(closed) :] + text[len(turns) :]
    return [_ids(tokenizer, piece) for piece in text.split(SPEECH)]


def render_conversation(
    tokenizer: PreTrainedTokenizerBase,
    family: str,
    system_prompt: str | None,
    turns: Sequence[tuple[str | None, str]],
    question: str = SPEECH,
    compat: str = "paper",
) -> list[list[int]]:
    """Ids around the sounds of a conversation: earlier turns as (words of the question, none if it was heard; words of the answer).

    Training and answering both render here.
    """
    messages = []
    for asked, answered in turns:
        said = SPEECH if asked is None else words_only(asked)
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": words_only(answered)}]
    return render_turns(tokenizer, family, system_prompt, [*messages, {"role": "user", "content": question}], compat)


def words_only(text: str) -> str:
    """A text without the mark of a sound, should it hold one."""
    return text.replace(SPEECH, "")


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
