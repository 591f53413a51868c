"""Text tokenizers: train a small one from nothing, load any from a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from vocalnet_cli.core.errors import MissingWeights
from vocalnet_cli.core.model.folder import home

LLAMA_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>"]
QWEN_SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
LLAMA_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATE_WORDS = ["system", "user", "assistant", "\n\n", "\n"]


def train_tokenizer(texts: Iterable[str], vocab: int, family: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab` entries, special tokens of the family included.

    Every byte has an entry, so no text is unknown. The chat template is the family's, without the date block.
    """
    specials = LLAMA_SPECIALS if family == "llama" else QWEN_SPECIALS
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = list(texts)
    # The template's own words must be entries too, or every prompt would spell them letter by letter.
    bpe.train_from_iterator(texts + TEMPLATE_WORDS * len(texts), trainer)
    end, pad = ("<|eot_id|>", "<|pad|>") if family == "llama" else ("<|im_end|>", "<|endoftext|>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=end, pad_token=pad, clean_up_tokenization_spaces=False)
    tokenizer.chat_template = LLAMA_TEMPLATE if family == "llama" else QWEN_TEMPLATE
    return tokenizer


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local model folder. Raises MissingWeights when there is none."""
    folder = home(Path(folder), "tokenizer.json")
    if (folder / "tokenizer.json").is_file():
        # Not through AutoTokenizer: it asks config.json for a model type, and does not know that of the released checkpoints.
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
    raise MissingWeights(f"{folder}: no tokenizer.json", "Name a folder that holds a tokenizer, in `init.tokenizer` or as the model.")
