"""What a training step holds beside weights, gradients and moments, from sizes alone: what each layer keeps for the backward pass.

Counted for a batch of the longest rows the recipe lets in. What autocast keeps are inputs cast to bfloat16, one for each linear layer
that reads them, beside residuals and norms in single precision.
"""

from __future__ import annotations

from dataclasses import dataclass

from vocalnet_cli.core.config.schema import Recipe, ThinkerSettings
from vocalnet_cli.core.config.talker_schema import TalkerSettings
from vocalnet_cli.core.model.prompt import DEFAULT_SYSTEM
from vocalnet_cli.core.model.talker.chunked import SCORES_AT_ONCE
from vocalnet_cli.core.model.talker.side_by_side import SCORES_AT_ONCE as ATTENTION_AT_ONCE
from vocalnet_cli.core.units import SPEECH_TOKEN_HZ

TURN_IDS, SYSTEM_IDS, WORD_IDS = 12, 30, 1.25
"""Token ids of a chat template around a question, and around a system message (Llama's tells the date), and of a word of that message."""
TEXT_HZ = 4
"""Text tokens a second of speech, rather too many."""
ENCODER_HZ = 50
READS = ("lm", "align", "asr-pretrain", "joint", "tts-pretrain")
"""Stages in which gradients go through the thinker."""
SPEAKS = ("speak", "joint", "tts-pretrain", "distill")


@dataclass(frozen=True)
class Longest:
    """A batch of the longest rows: how many, and columns of each."""

    rows: int
    heard_s: float
    prompt: int
    text: int
    speech: int

    @classmethod
    def of(cls, recipe: Recipe) -> Longest:
        data, train, model = recipe.data, recipe.train, recipe.model
        heard = (
            0.0
            if data.questions == "written" or recipe.stage in ("lm", "tts-pretrain")
            else min(data.max_question_s, model.encoder.window_s)
        )
        asked = round(heard * ENCODER_HZ / model.adaptor.stack) if heard else round(TEXT_HZ * min(10, data.max_question_s))
        prompt = _around(model.thinker) + asked
        text, speech = round(data.max_answer_s * TEXT_HZ) + 1, round(data.max_answer_s * SPEECH_TOKEN_HZ)
        length = speech if recipe.stage in SPEAKS else prompt + text
        rows = max(1, train.tokens_per_batch // length) if train.tokens_per_batch else train.batch_size
        return cls(rows, heard, prompt, text, speech)


def _around(thinker: ThinkerSettings) -> int:
    """Token ids around a question."""
    system = DEFAULT_SYSTEM[thinker.family] if thinker.system_prompt is None else thinker.system_prompt
    return TURN_IDS + (SYSTEM_IDS + round(WORD_IDS * len(system.split())) if system else 0)


def activation_bytes(recipe: Recipe, learns: int, device: str) -> int | None:
    """The most that a step's forward and backward pass hold on a device; `learns` counts the parameters that learn. None for a stage not
    counted."""
    stage, batch = recipe.stage, Longest.of(recipe)
    if stage not in (*READS, *SPEAKS):
        return None
    lora = recipe.train.parts is not None and "lora" in recipe.train.parts
    read = stage in READS or lora
    written_out = device == "cpu" and stage in SPEAKS and recipe.model.talker.kind != "mdm"  # talker/cpu_layer.py: it keeps no casts
    casts = 2 * learns if recipe.train.dtype == "bf16" and (read or not written_out) else 0  # autocast's copies of the weights
    reading = _reading(recipe, batch) if read else 0
    speaking = _speaking(recipe, batch, written_out) if stage in SPEAKS else 0
    return max(reading + speaking + casts, _hearing(recipe, batch))


def _width(recipe: Recipe) -> int:
    return 2 if recipe.train.dtype == "bf16" else 4


def _hearing(recipe: Recipe, batch: Longest) -> int:
    """Encoder and thinker without gradients: one layer at a time."""
    thinker, encoder, b = recipe.model.thinker, recipe.model.encoder, _width(recipe)
    window = encoder.window_s if encoder.padding == "window" else batch.heard_s
    frames = round(batch.rows * window * ENCODER_HZ) if batch.heard_s else 0
    tokens = batch.rows * (batch.prompt + batch.text)
    return max(frames * (16 * encoder.hidden + 2 * b * encoder.ffn), tokens * (16 * thinker.hidden + 3 * b * thinker.ffn))


def _reading(recipe: Recipe, batch: Longest) -> int:
    """The thinker's layers, and the scores of the written answer."""
    thinker, b = recipe.model.thinker, _width(recipe)
    h, f = thinker.hidden, thinker.ffn
    columns = batch.prompt + batch.text
    tokens = batch.rows * columns
    if recipe.stage == "lm":
        layer = _layer(h, 4 * f, b)
    else:
        inputs = (6 * h + f) * (b + 1) if thinker.lora.dropout else (3 * h + f) * b
        layer = 8 * h + 4 * h * b + 3 * f * b + inputs
    layer += b * columns  # the mask, which each layer keeps
    kept = 4 * h if recipe.train.gradient_checkpointing else layer
    passing = layer if recipe.train.gradient_checkpointing else 0
    return round(tokens * (thinker.layers * kept + passing + 3 * f * b + 12 * thinker.vocab))


def _speaking(recipe: Recipe, batch: Longest, written_out: bool) -> int:
    """The talker's layers, and its heads' scores a chunk at a time, with the gradients that are taken while they are there."""
    talker, b = recipe.model.talker, _width(recipe)
    h, f, vocab = talker.hidden, talker.ffn, talker.codes + 4
    mdm, heads = talker.kind == "mdm", talker.step_sizes[-1]
    chained = talker.kind in ("mtp-vocalnet", "mtp-deepseek")
    group = getattr(talker, "group", 1)
    spoken = batch.speech * (2 if mdm else 1) // group + 1
    columns = batch.text + 1 + spoken
    rows, text = batch.rows * columns, batch.rows * batch.text
    layer = 8 * h + (4 * h + 2 * f) * b + _coins(talker, columns) if written_out else _layer(h, (4 if mdm else 2) * f, b)
    again = recipe.train.gradient_checkpointing
    kept = 4 * h if again else layer
    layers = rows * (talker.decoder_layers + (heads - 1 if chained else 0)) + text * talker.projector_layers
    passing = rows * ((layer if again else 0) + (3 * f + 4 * h) * b)
    mask = batch.rows * columns * columns * b
    if written_out:
        attention = min(ATTENTION_AT_ONCE, batch.rows * talker.heads * columns * columns) * (16 + 3 * b)
        passing = rows * (layer if again else 0) + max(rows * (5 * f + 2 * h) * b, attention)
        mask = batch.rows * columns * columns * 5
    stacks = heads if chained else 1
    scores = SCORES_AT_ONCE * (b + 12) + 4 * h * (stacks * batch.rows * spoken + (stacks if chained else heads) * vocab)
    return layers * kept + passing + mask + scores


def _coins(talker: TalkerSettings, columns: int) -> int:
    """Bytes of dropout's coins a token."""
    return 2 * talker.heads * columns if talker.dropout else 0


def _layer(h: int, inner: int, b: int) -> int:
    """Bytes a Llama layer that learns keeps of a token: both norms, what attention reads and gives, and `inner` values of the MLP."""
    norms = 24 * h if b == 4 else 16 * h + 10 * h
    return norms + 5 * h * b + inner * b
