"""Settings of the talkers, one small class a variant. A recipe's `talker.kind` picks the class."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of every recipe section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TalkerSettings(Settings):
    """What every talker has: a text-side projector and a causal speech decoder (arXiv 2504.04060, section 3)."""

    in_released_code: ClassVar[bool] = False
    """Whether the released code has this talker: only then can a model follow its habits, or be exported in its layout."""

    hidden: int = Field(2048, gt=0)
    """Width of the talker; equals the thinker's width, whose states it reads."""
    ffn: int = Field(8192, gt=0)
    """Inner width of the gated MLP of each layer."""
    heads: int = Field(32, gt=0)
    """Attention heads of each layer."""
    projector_layers: int = Field(2, ge=0)
    """Causal layers over the thinker's states, before the decoder."""
    decoder_layers: int = Field(4, gt=0)
    """Layers of the speech decoder."""
    codes: int = Field(6561, gt=1)
    """Size of the speech codebook; four special ids follow: BOS, SOS, EOS, PAD."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of attention probabilities, in training only."""
    text_chunk: int = Field(5, gt=0)
    """Text states the talker reads before each speech chunk (C_t, arXiv 2504.04060 section 3.3)."""
    speech_chunk: int = Field(15, gt=0)
    """Speech rows that share one view of the text (C_s)."""
    reads_tokens: bool = False
    """Add each text token's embedding, as long as the state, to the state that has read it. A large thinker's states tell which token
    they have read; a small one's tell more of the next token than of their own, the first above all."""

    @property
    def reads(self) -> tuple[str, int]:
        """The key that says how wide the thinker's states are, and their width."""
        return "hidden", self.hidden

    @property
    def step_sizes(self) -> range:
        """How many speech tokens one decoding step can draw."""
        return range(1, 2)

    @property
    def step_rule(self) -> str:
        """The same in words, with the key it follows from."""
        return "always 1 with this kind of talker"

    def for_step(self, tokens: int) -> TalkerSettings:
        """The same talker, large enough to draw `tokens` a step where its kind has a size for that."""
        return self

    def refused_step(self, tokens: int) -> str | None:
        """Why a step cannot draw `tokens` speech tokens; none if it can."""
        return None if tokens in self.step_sizes else self.step_rule


class NtpSettings(TalkerSettings):
    """Next-token prediction: one speech token a step (the paper's baseline)."""

    in_released_code: ClassVar[bool] = True
    kind: Literal["ntp"] = "ntp"


class GroupSettings(TalkerSettings):
    """Groups of tokens are read as one row and spoken in one step; their size is learned, so it is the same in decoding."""

    group: int = Field(3, ge=2)
    """Speech tokens a group, and a step."""

    @property
    def step_sizes(self) -> range:
        return range(self.group, self.group + 1)

    @property
    def step_rule(self) -> str:
        return f"always {self.group}, as model.talker.group says"

    def for_step(self, tokens: int) -> TalkerSettings:
        return self.model_copy(update={"group": tokens})


class GroupLinearSettings(GroupSettings):
    """Group-Linear: one linear layer scores the tokens of a group."""

    kind: Literal["group-linear"] = "group-linear"


class GroupTransSettings(GroupSettings):
    """Group-Trans: a small non-autoregressive transformer with a learned query for each token of a group."""

    kind: Literal["group-trans"] = "group-trans"
    group_layers: int = Field(2, ge=1)
    """Layers of the transformer that speaks a group."""


class MtpSettings(TalkerSettings):
    """Multi-token prediction: each row predicts the next token, and more after it."""

    modules: int = Field(5, ge=1)
    """Extra predictions a row; with the main head, modules + 1 tokens are learned a position."""
    loss_decay: float = Field(0.8, gt=0, le=1)
    """Weight of prediction k's loss is loss_decay**k (equation 4)."""

    @property
    def step_sizes(self) -> range:
        return range(1, self.modules + 2)

    @property
    def step_rule(self) -> str:
        return f"at most {self.modules + 1} with model.talker.modules {self.modules}"

    def for_step(self, tokens: int) -> TalkerSettings:
        return self.model_copy(update={"modules": max(self.modules, tokens - 1)})


class MtpParallelLinearSettings(MtpSettings):
    """MTP-Parallel-Linear: linear heads side by side on the decoder's state."""

    kind: Literal["mtp-parallel-linear"] = "mtp-parallel-linear"


class MtpDeepseekSettings(MtpSettings):
    """MTP-DeepSeek: module k also reads the token before the one it predicts, so each is next-token prediction once more."""

    kind: Literal["mtp-deepseek"] = "mtp-deepseek"
    shared_head: bool = True
    """Modules score with the main output layer, as in DeepSeek-V3; false gives each one of its own, as MTP-VocalNet has."""


class MtpVocalnetSettings(MtpSettings):
    """Chained multi-token prediction: module k turns the states of module k-1 into the token k steps later."""

    in_released_code: ClassVar[bool] = True
    kind: Literal["mtp-vocalnet"] = "mtp-vocalnet"


class MdmSettings(TalkerSettings):
    """Masked diffusion over blocks of speech tokens, a few passes a block (VocalNet-MDM, arXiv 2602.08607)."""

    kind: Literal["mdm"] = "mdm"
    text_hidden: int | None = Field(None, gt=0)
    """Width of the thinker's states; none means `hidden`. The talker's width need not follow the thinker's."""
    projector_layers: int = Field(0, ge=0)
    """Causal layers after the linear map of the thinker's states."""
    text_chunk: int = Field(4, gt=0)
    """Text states a block carries, its anchors (Q)."""
    speech_chunk: int = Field(16, gt=0)
    """Speech tokens of a block (B)."""
    anchors: Literal["add", "slot"] = "add"
    """Text states are added to the first tokens of their block, or take columns of their own before them."""
    layout: Literal["doubled", "single"] = "doubled"
    """Blocks are learned beside clean earlier blocks, as they are decoded, or beside noisy ones, as the paper has it."""
    masking: Literal["bernoulli", "hierarchical", "block-uniform"] = "bernoulli"
    """How the hidden tokens of a training sample are drawn."""
    whole_blocks: float = Field(0.2, ge=0, le=1)
    """Share of the blocks whose tokens are all hidden in training: the first pass over a block sees nothing else."""
    corrupt: float = Field(0.0, ge=0, lt=1)
    """Share of the shown tokens replaced by random ones in training, as a model's own mistakes would be."""
    longest_token_s: float = Field(1.5, gt=0)
    """An answer ends at the latest after so many seconds a text token."""

    @property
    def reads(self) -> tuple[str, int]:
        return ("hidden", self.hidden) if self.text_hidden is None else ("text_hidden", self.text_hidden)

    @property
    def step_sizes(self) -> range:
        return range(self.block, self.block + 1)

    def refused_step(self, tokens: int) -> str | None:
        """A block is spoken in `generation.steps` passes; nothing is asked of `generation.tokens_per_step`."""
        return None

    @property
    def block(self) -> int:
        """B."""
        return self.speech_chunk

    @property
    def slots(self) -> int:
        """Anchor columns a block."""
        return self.text_chunk if self.anchors == "slot" else 0


TalkerChoice = Annotated[
    NtpSettings
    | GroupLinearSettings
    | GroupTransSettings
    | MtpParallelLinearSettings
    | MtpDeepseekSettings
    | MtpVocalnetSettings
    | MdmSettings,
    Field(discriminator="kind"),
]
