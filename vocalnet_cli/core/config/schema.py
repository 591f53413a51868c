"""What a recipe may say: typed sections with a line of help, a unit and a limit for every key.

Free of torch, so that a wrong recipe is reported at once. `vocalnet train --recipe NAME` reads one; `load.py` turns YAML into it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from vocalnet_cli.core.config.parts import Init, Stage
from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings, Settings, TalkerChoice
from vocalnet_cli.core.config.vocoder_schema import FlowTraining, HiftTraining, VocoderSettings


class EncoderSettings(Settings):
    """A Whisper encoder: log-mel in, one state each 20 ms out."""

    hidden: int = Field(1280, gt=0)
    """Width of the encoder."""
    layers: int = Field(32, gt=0)
    """Transformer layers."""
    heads: int = Field(20, gt=0)
    """Attention heads a layer."""
    ffn: int = Field(5120, gt=0)
    """Inner width of each layer's MLP."""
    mel_bins: int = Field(128, gt=0)
    """Log-mel bins (128 for Whisper large-v3, 80 for the smaller ones)."""
    window_s: float = Field(30.0, gt=0, le=30)
    """Longest speech heard at once, in seconds; longer questions are heard in several windows."""
    padding: Literal["window", "fit"] = "window"
    """`window` pads with silence to the whole window, unmasked (as Whisper was trained); `fit` hears the speech alone."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the encoder while it is being trained."""


class AdaptorSettings(Settings):
    """Downsampling adaptor: concatenate k frames, two linear layers (arXiv 2504.04060, section 3.1)."""

    stack: int = Field(5, gt=0)
    """Encoder frames joined into one thinker embedding (k)."""
    hidden: int = Field(2048, gt=0)
    """Inner width."""


class LoraSettings(Settings):
    """Low-rank adaptation of the thinker, merged when the stage ends."""

    rank: int = Field(8, gt=0)
    """Rank of the update."""
    alpha: float = Field(16.0, gt=0)
    """Scale is alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout before the low-rank factors."""


class ThinkerSettings(Settings):
    """The text LLM that understands and writes the answer."""

    family: Literal["llama", "qwen2", "qwen3"] = "llama"
    """Model class and default chat template."""
    hidden: int = Field(2048, gt=0)
    """Width."""
    layers: int = Field(16, gt=0)
    """Transformer layers."""
    heads: int = Field(32, gt=0)
    """Attention heads."""
    kv_heads: int = Field(8, gt=0)
    """Key and value heads (grouped-query attention)."""
    ffn: int = Field(8192, gt=0)
    """Inner width of the gated MLP."""
    vocab: int = Field(128256, gt=0)
    """Text vocabulary."""
    tied: bool = True
    """Input and output embeddings are one matrix."""
    rope_theta: float = Field(500000.0, gt=0)
    """Base of the rotary positions."""
    rope_scaling: dict[str, Any] | None = None
    """Rotary scaling as transformers names it, or none."""
    norm_eps: float = Field(1e-5, gt=0)
    """Epsilon of RMSNorm."""
    max_positions: int = Field(131072, gt=0)
    """Longest prompt and answer together, in tokens."""
    head_dim: int | None = Field(None, gt=0)
    """Width of an attention head; none is hidden / heads (Qwen3 says 128 whatever the rest)."""
    system_prompt: str | None = None
    """System message of every turn; none uses the family's default of the released models."""
    lora: LoraSettings = LoraSettings()
    """Adapter of the stages in which the thinker learns (`lora` among what they train)."""


class ModelSettings(Settings):
    """The parts of one speech LLM."""

    compat: Literal["paper", "released", "official"] = "paper"
    """Whose masks, positions and prompt details to follow (README, section on released checkpoints)."""
    encoder: EncoderSettings = EncoderSettings()
    adaptor: AdaptorSettings = AdaptorSettings()
    thinker: ThinkerSettings = ThinkerSettings()
    talker: TalkerChoice = Field(default_factory=MtpVocalnetSettings)
    vocoder: VocoderSettings | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelSettings:
        key, width = self.talker.reads
        if width != self.thinker.hidden:
            raise ValueError(f"talker.{key} is {width}, thinker.hidden is {self.thinker.hidden}: they must be equal")
        if self.vocoder is not None and self.vocoder.codes != self.talker.codes:
            raise ValueError(f"vocoder.codes is {self.vocoder.codes}, talker.codes is {self.talker.codes}: they must be equal")
        if self.compat != "paper" and not self.talker.in_released_code:
            raise ValueError(f"compat is {self.compat}: the released code has no talker.kind {self.talker.kind}, so it must be paper")
        if self.compat != "paper" and self.talker.reads_tokens:
            raise ValueError(f"compat is {self.compat}: the released code's talkers do not have talker.reads_tokens")
        for name, part in (("encoder", self.encoder), ("thinker", self.thinker), ("talker", self.talker)):
            if part.hidden % part.heads:
                raise ValueError(f"{name}.hidden is {part.hidden}: not a multiple of {name}.heads, {part.heads}")
        return self


class PartsElsewhere(Settings):
    """What config.json of a model says of the model that the parts it does not carry come from."""

    model: str = Field(min_length=1)
    """Name of an embedded model, or a folder."""
    thinker_mark: str
    """What tells the weights of that model's thinker, whose states the talker learned to read, from others."""


class AugmentSettings(Settings):
    """Changes to the log-mel of a question, drawn anew each time."""

    time_masks: int = Field(2, ge=0)
    """SpecAugment time masks a question."""
    time_mask_frames: int = Field(15, ge=0)
    """Longest time mask, in 10 ms frames."""
    frequency_masks: int = Field(2, ge=0)
    """SpecAugment frequency masks a question."""
    frequency_mask_bins: int = Field(12, ge=0)
    """Widest frequency mask, in mel bins."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of noise added to the log-mel."""
    shift_frames: int = Field(0, ge=0)
    """Silence put before the question, up to this many 10 ms frames."""
    warp: float = Field(0.0, ge=0, lt=0.5)
    """Tempo and formant change of the log-mel, up to this fraction either way."""
    bend: float = Field(0.0, ge=0, lt=0.5)
    """Standard deviation of the uneven change of tempo (from syllable to syllable) and formants (one from another), as a fraction."""
    equalise_db: float = Field(0.0, ge=0, le=30)
    """Standard deviation of a smooth change of the spectrum, in dB: another microphone, another speaker's build."""
    reverb_s: float = Field(0.0, ge=0, le=2)
    """Longest reverberation (time to fall by 60 dB) of the rooms the question is put into."""


class DataSettings(Settings):
    """Where the rows come from."""

    manifest: str = ""
    """Manifest of `vocalnet prep`, or a set as VocalNet (JSON) or SLAM-Omni (JSONL, parquet) publish it; from the working directory on."""
    root: str = ""
    """Folder that the manifest's paths are relative to and stay in; empty: its own."""
    recordings: str = ""
    """Folder of one speaker's recordings (wav, flac, mp3, ogg) instead of a manifest: stages `flow` and `hift` need no text."""
    voice: str = Field("", pattern=r"^[^\s/\\.]*$")
    """Name the voice of `recordings` gets (no spaces, dots or slashes); none = the folder's."""
    questions: Literal["spoken", "written"] = "spoken"
    """`written` gives the thinker the question's text instead of its sound: a talker can learn before stage 1 is there."""
    train_splits: list[str] = ["train"]
    """Splits that are trained on; held-out splits are refused."""
    dev_splits: list[str] = ["dev"]
    """Splits the dev loss is measured on."""
    history: int = Field(0, ge=0)
    """Earlier turns of a row (`history`) that stand before its question, at most: as many as `generation.history` is to be."""
    max_question_s: float = Field(30.0, gt=0)
    """Longer questions are left out, counted and reported."""
    max_answer_s: float = Field(60.0, gt=0)
    """Longer answers are left out, counted and reported."""
    balance: bool | dict[str, PositiveInt] = False
    """Draw every kind of question (`meta.kind`) equally often; a mapping draws each kind it names that many times as often."""
    cache: bool = False
    """Compute once and keep on disk what does not change from draw to draw: log-mels, the encoder's states, in `speak` the thinker's.
    `--cache-frozen DIR` says where, and sets this."""
    augment: AugmentSettings = AugmentSettings(time_masks=0, frequency_masks=0)
    """Changes made to a question each time it is drawn."""


class TrainSettings(Settings):
    """The optimisation of one stage."""

    parts: list[str] | None = None
    """Parts that learn; none = the stage's own list."""
    steps: int = Field(1000, gt=0)
    """Optimiser steps."""
    batch_size: int = Field(32, gt=0)
    """Rows a step on one device."""
    tokens_per_batch: int | None = Field(None, gt=0)
    """Instead of batch_size: rows of similar length, as many as times the longest stay within this (the stage's own measure)."""
    accumulate: int = Field(1, gt=0)
    """Batches whose gradients are summed before each optimiser step; means are over the targets of all of them."""
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the rate after the warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Part of the steps over which the rate rises."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW weight decay."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward and backward pass; weights and optimiser stay fp32."""
    attention: Literal["sdpa", "flex"] = "sdpa"
    """Masked-diffusion talkers on a GPU: `flex` leaves out the pairs that do not see each other (no model.talker.dropout then)."""
    gradient_checkpointing: bool = False
    """Compute each transformer layer again in the backward pass instead of keeping what is inside it."""
    frozen_dtype: Literal["fp32", "bf16"] = "fp32"
    """Type in which encoder, adaptor, thinker and talker lie in memory where they do not learn; they are saved so too."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """`adamw-8bit` keeps the moments in 8 bits (needs bitsandbytes and a GPU)."""
    overfit_steps: int = Field(300, gt=0)
    """Steps of `--overfit`."""
    overfit_loss: float = Field(0.5, gt=0)
    """Loss that `--overfit` must reach on its rows, all heads together."""
    text_weight: float = Field(1.0, ge=0)
    """Weight of the written answer's loss beside that of the speech, where one stage learns both."""
    streaming_share: float = Field(0.5, ge=0, le=1)
    """Share of examples under the streaming mask: the talker's (the rest see the whole text; arXiv 2504.04060, section 3.3), the flow's."""
    flow: FlowTraining = FlowTraining()
    """Stage `flow` alone."""
    hift: HiftTraining = HiftTraining()
    """Stage `hift` alone."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of the mean gradient and of its square."""
    log_every: int = Field(10, gt=0)
    """Steps between lines of metrics.jsonl."""
    save_every: int = Field(200, gt=0)
    """Steps between checkpoints."""
    eval_every: int = Field(200, gt=0)
    """Steps between measurements of the dev loss."""
    keep: int = Field(2, ge=2)
    """Checkpoints kept."""
    seed: int = 0
    """Seed of weights, order, masks and dropout."""
    save_dtype: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    """Type of the weights written when the stage ends; `int8` keeps matrices in 8 bits with a scale a row, the rest in fp16."""


class DistributedSettings(Settings):
    """How several processes (`torchrun`, `accelerate launch`) share a run; one process ignores it."""

    strategy: Literal["ddp", "fsdp", "zero2", "zero3"] = "ddp"
    """Whole copies (`ddp`), or weights, gradients and optimiser in pieces: FSDP2, DeepSpeed ZeRO-2 or -3."""
    offload: bool = False
    """Keep those pieces in the machine's memory instead of the device's."""


class GenerationSettings(Settings):
    """How an answer is drawn."""

    max_text_tokens: int = Field(512, gt=0)
    """Longest text answer, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """Text sampling temperature; 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus of the text sampling."""
    text_repetition_penalty: float = Field(1.0, gt=0)
    """Divides positive and multiplies negative scores of text tokens already written, as transformers does; 1 is off."""
    tokens_per_step: int = Field(3, gt=0)
    """Speech tokens a talker step: at most modules + 1 with multi-token prediction, else 1 or the talker's own group."""
    steps: int | Literal["auto"] = 4
    """Passes a masked-diffusion talker makes over a block of speech tokens; auto stops as soon as all of them are certain."""
    certain_from: float = Field(0.9, gt=0, le=1)
    """Probability from which `steps: auto` counts a speech token as certain."""
    confidence: Literal["prob", "calibrated"] = "prob"
    """What is revealed first: the likeliest speech tokens, or those whose likelihood rose most over what it is before anything is known."""
    gumbel: float = Field(0.0, ge=0)
    """Gumbel noise on the log-probabilities that decide what is revealed first."""
    speech_temperature: float = Field(0.0, ge=0)
    """Speech sampling temperature; 0 is greedy."""
    speech_top_k: int = Field(0, ge=0)
    """Keep the k likeliest speech tokens; 0 keeps all."""
    repetition_penalty: float | None = Field(None, ge=1)
    """Divides the probability of recently spoken tokens; 1 is off, none is the model's own (2 for released checkpoints, else off)."""
    repetition_window: int | None = Field(None, ge=0)
    """Spoken tokens the penalty looks back on; none is the model's own (released: 5, while streaming 6)."""
    max_speech_tokens: int = Field(2048, gt=0)
    """Longest spoken answer, in speech tokens (25 a second)."""
    max_question_s: float = Field(300.0, gt=0)
    """Longer questions are refused."""
    history: int = Field(8, ge=0)
    """Earlier turns of a conversation that an answer takes into account; 0 for models that were trained on single questions only."""
    streaming: bool = True
    """Speak while the text is still being written; false waits for the whole text."""


class DistillSettings(Settings):
    """Self-distillation of a masked-diffusion talker (arXiv 2602.08607)."""

    passes: int = Field(4, ge=1)
    """Passes in which the frozen teacher reveals what is hidden (K)."""
    temperature: float = Field(2.0, gt=0)
    """Temperature of both distributions in the reverse KL (tau)."""
    alpha: float = Field(0.7, ge=0, le=1)
    """Weight of the reverse KL; the rest is the cross-entropy's."""
    rounds: int = Field(1, ge=1)
    """How often the student becomes the teacher and training starts again; `train.steps` are those of each round."""
    cached_masks: int = Field(0, ge=0)
    """Masks a row is learned under, whose targets are computed once and kept on disk (needs data.cache); 0 hides other tokens each time."""
    cached_codes: int = Field(128, gt=0)
    """Likeliest codes kept of each such target; the others are one number, their probability, and about that share of the loss is lost."""


class EvalSettings(Settings):
    """What the finished model is asked when `vocalnet recipes run` measures it."""

    benchmarks: list[str] = []
    """Question sets by name, or manifests relative to the working directory; none = those `vocalnet eval` takes."""
    limit: int | None = Field(None, gt=0)
    """Questions asked of each set, from its start; none asks all."""


class LatencySettings(Settings):
    """What `vocalnet latency` measures, and how often."""

    model: str | None = None
    """What is measured, as `--model` takes it; none = the finished run of the recipe."""
    benchmarks: list[str] = ["nano-combination"]
    """Question sets by name, or manifests relative to the working directory."""
    limit: int | None = Field(20, gt=0)
    """Questions asked of each set, from its start; none asks all."""
    repeats: int = Field(3, gt=0)
    """Times each question is asked; of `talker` and `compare`, rounds."""
    warmup: int = Field(3, gt=0)
    """Turns before those that count; the first of them is the cold one."""
    answer_s: float = Field(10.0, gt=0)
    """Length of the answer that `talker` and `vocoder` speak, in seconds."""
    prompt_s: float = Field(3.0, gt=0)
    """Length of the recorded voice that `vocoder` continues, in seconds."""
    chunk_tokens: int = Field(15, gt=0)
    """Speech tokens of each chunk of `vocoder` (15 are 0.6 s, as in table 8 of arXiv 2504.04060)."""
    long_s: float = Field(60.0, ge=0)
    """Length of the answer that `vocoder` also speaks under `context: window`, in seconds; 0 leaves it out."""
    window_tokens: int = Field(75, gt=0)
    """`vocoder.window_tokens` of that answer."""
    question_s: float = Field(3.0, gt=0)
    """Length of the question that `roofline` hears, in seconds."""
    baseline: bool = True
    """`talker` and `vocoder` also measure themselves without caches, which takes most of their time."""


class PaperRow(Settings):
    """The row of a paper a recipe stands for."""

    arxiv: str
    """arXiv id."""
    table: str
    """Table or figure."""
    row: str
    """Row label."""
    expect: dict[str, float] = {}
    """The paper's numbers, by unit-carrying name (`wer_percent`, `utmos`)."""
    place: int | None = Field(None, gt=0)
    """Where the row stands in its table, 1 being the first; rows without a place come last, by name."""


class Recipe(Settings):
    """Everything one run needs."""

    about: str = ""
    """One line for `vocalnet recipes`."""
    stage: Stage | None = None
    """What is trained; none for recipes that only others extend, and for those of `vocalnet latency`."""
    paper: PaperRow | None = None
    """The paper row this stands for."""
    model: ModelSettings = ModelSettings()
    init: Init = {}
    """Part to what its weights start from: a folder, a hub id, or `nano`, the embedded model; parts not named, or null, start at random.
    speech-tokenizer, flow and hift are parts of the vocoder, which may come from different folders. A CosyVoice2 as the vocoder is what
    the finished model speaks through; without `model.vocoder` training does not need it."""
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    distributed: DistributedSettings = DistributedSettings()
    distill: DistillSettings = DistillSettings()
    generation: GenerationSettings = GenerationSettings()
    eval: EvalSettings = EvalSettings()
    latency: LatencySettings = LatencySettings()
    tried: list[str] = []
    """What did not help, one line each, with its number."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Recipe:
        tokens = self.generation.tokens_per_step
        refused = self.model.talker.refused_step(tokens)
        if self.stage in ("speak", "joint") and refused is not None:
            raise ValueError(f"generation.tokens_per_step is {tokens}: {refused}")
        if self.train.attention == "flex" and (self.model.talker.kind != "mdm" or self.model.talker.dropout):
            raise ValueError("train.attention is flex: that is for model.talker.kind mdm with model.talker.dropout 0")
        return self
