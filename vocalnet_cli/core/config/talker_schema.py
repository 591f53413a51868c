"""Settings of the talkers, one small class a variant. A recipe's `talker.kind` picks the class."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of every recipe section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TalkerSettings(Settings):
    """What every talker has: a text-side projector and a causal speech decoder (arXiv 2504.04060, section 3)."""

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


class NtpSettings(TalkerSettings):
    """Next-token prediction: one speech token a step (the paper's baseline)."""

    kind: Literal["ntp"] = "ntp"


class MtpVocalnetSettings(TalkerSettings):
    """Chained multi-token prediction: module k turns the states of module k-1 into the token k steps later."""

    kind: Literal["mtp-vocalnet"] = "mtp-vocalnet"
    modules: int = Field(5, ge=1)
    """Extra prediction modules; with the main head, modules + 1 tokens are learned a position."""
    loss_decay: float = Field(0.8, gt=0, le=1)
    """Weight of module k's loss is loss_decay**k (equation 4)."""


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
    def block(self) -> int:
        """B."""
        return self.speech_chunk

    @property
    def slots(self) -> int:
        """Anchor columns a block."""
        return self.text_chunk if self.anchors == "slot" else 0


TalkerChoice = Annotated[NtpSettings | MtpVocalnetSettings | MdmSettings, Field(discriminator="kind")]
