"""Settings of the CosyVoice2 vocoder: sizes as its checkpoint has them, and how it streams. A recipe's `vocoder.kind` picks it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from vocalnet_cli.core.config.talker_schema import Settings

RELEASED_CONFIGS = ("cosyvoice2.yaml", "cosyvoice.yaml")
"""Names of the file that tells the sizes of a released vocoder, newest first."""


class FlowSettings(Settings):
    """Sizes of the flow: a conformer that doubles the frame rate, and the estimator of the ODE (arXiv 2412.10117, section 2.3)."""

    hidden: int = Field(512, gt=0)
    """Width of the conformer and of the token embeddings."""
    heads: int = Field(8, gt=0)
    """Attention heads of the conformer."""
    ffn: int = Field(2048, gt=0)
    """Inner width of the conformer's feed-forward layers."""
    layers: int = Field(6, gt=0)
    """Conformer layers at 25 Hz."""
    up_layers: int = Field(4, gt=0)
    """Conformer layers at 50 Hz."""
    lookahead_tokens: int = Field(3, ge=0)
    """Tokens after a token that its frames depend on (40 ms each)."""
    speaker: int = Field(192, gt=0)
    """Length of the speaker vector (CAM++)."""
    channels: int = Field(256, gt=0)
    """Width of the estimator."""
    estimator_heads: int = Field(8, gt=0)
    """Attention heads of the estimator."""
    head_dim: int = Field(64, gt=0)
    """Width of one of the estimator's heads."""
    groups: int = Field(12, gt=0)
    """Middle groups of the estimator, each one convolution block and its transformers."""
    transformers: int = Field(4, gt=0)
    """Transformer layers a group."""


class HiftSettings(Settings):
    """Sizes of HiFT: a harmonic source and a convolution stack that predicts a short-time spectrum (arXiv 2309.09493)."""

    channels: int = Field(512, gt=0)
    """Channels before the first upsampling; each stage halves them."""
    f0_channels: int = Field(512, gt=0)
    """Channels of the pitch predictor."""
    harmonics: int = Field(8, ge=0)
    """Overtones above the fundamental."""
    amplitude: float = Field(0.1, gt=0)
    """Amplitude of a voiced sine."""
    noise: float = Field(0.003, ge=0)
    """Standard deviation of the noise on a voiced sine; unvoiced noise has a third of the amplitude."""
    voiced_hz: float = Field(10.0, ge=0)
    """Pitch above which a frame is voiced, in Hz."""
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    """Factors of the upsampling stages; with `istft_hop` they make 480 samples a frame."""
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    """Kernel of each upsampling."""
    kernels: tuple[int, ...] = (3, 7, 11)
    """Kernels of the residual blocks of every stage."""
    dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Dilations of each of those blocks."""
    source_kernels: tuple[int, ...] = (7, 7, 11)
    """Kernel of each stage's residual block for the source."""
    source_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Dilations of those."""
    istft_fft: int = Field(16, gt=0)
    """Window of the output's short-time spectrum, in samples."""
    istft_hop: int = Field(4, gt=0)
    """Hop of the output's short-time spectrum, in samples."""
    slope: float = Field(0.1, ge=0)
    """Negative slope before each upsampling."""
    limit: float = Field(0.99, gt=0)
    """Largest sample."""

    @model_validator(mode="after")
    def _stages_fit(self) -> HiftSettings:
        stages = len(self.upsample_rates)
        if {stages} != {len(self.upsample_kernels), len(self.source_kernels), len(self.source_dilations)}:
            raise ValueError(f"upsample_kernels, source_kernels and source_dilations must have {stages} values, as upsample_rates has")
        if len(self.kernels) != len(self.dilations):
            raise ValueError(f"dilations has {len(self.dilations)} values, kernels has {len(self.kernels)}: they must be equal")
        return self


class CosyVoice2Settings(Settings):
    """The CosyVoice2 vocoder (arXiv 2412.10117): flow matching from speech tokens to mel, HiFT from mel to 24 kHz."""

    TUNED: ClassVar = ("first_tokens", "block_tokens", "context", "window_tokens", "lookahead_frames", "steps", "guidance", "flow_dtype")
    """Settings of how it speaks, which any weights take; the others are those of the weights."""

    kind: Literal["cosyvoice2"] = "cosyvoice2"
    codes: int = Field(6561, gt=1)
    """Speech codebook."""
    flow: FlowSettings = FlowSettings()
    hift: HiftSettings = HiftSettings()
    release: Literal["2024", "2025"] = "2025"
    """Generation of the checkpoint: `2024` adds up its harmonics' phases a sample at a time (VocalNet's copy), `2025` a frame."""
    trained_block: int = Field(25, gt=0)
    """Attention block of the checkpoint, in tokens: the voice prompt is cut to a multiple of it (25; of release 2024, 50)."""
    first_tokens: int = Field(15, gt=0)
    """Tokens of an answer's first chunk; fewer = earlier first sound. Later chunks double until `block_tokens`."""
    block_tokens: int = Field(25, gt=0)
    """Tokens of the largest chunk; fewer = earlier sound, less context a frame."""
    context: Literal["full", "window"] = "window"
    """Whether a frame attends to all that was spoken, or to the voice prompt and the last `window_tokens` (bounded cost and memory)."""
    window_tokens: int = Field(250, gt=0)
    """Tokens before a chunk that it may attend to under `window`: answers up to this long are the same as under `full`."""
    lookahead_frames: int | None = Field(None, ge=0)
    """Mel frames (20 ms) of HiFT that wait for the frames after them; none = all that matter (exact), fewer = earlier sound."""
    steps: int = Field(10, ge=1, le=10)
    """Euler steps of the ODE."""
    guidance: float = Field(0.7, ge=0)
    """Classifier-free guidance; 0 halves the work."""
    flow_dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Arithmetic of the flow; none = that of the thinker and talker (`--dtype`). The ODE's state, pitch, phase and HiFT are always fp32."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> CosyVoice2Settings:
        if self.flow.hidden % self.flow.heads or self.flow.hidden % 2:
            raise ValueError(f"flow.hidden is {self.flow.hidden}: not an even multiple of flow.heads, {self.flow.heads}")
        if self.first_tokens > self.block_tokens:
            raise ValueError(f"first_tokens is {self.first_tokens}, block_tokens is {self.block_tokens}: the first must not be the larger")
        samples = self.hift.istft_hop
        for rate in self.hift.upsample_rates:
            samples *= rate
        if samples != 480:
            raise ValueError(f"hift.upsample_rates and hift.istft_hop make {samples} samples a frame: they must make 480")
        return self


class VocoderElsewhere(Settings):
    """What config.json of a model says of a vocoder whose weights it does not carry."""

    place: str = Field(min_length=1)
    """A CosyVoice2 folder, or a hub id."""
    settings: dict[str, Any] = {}
    """Of `CosyVoice2Settings.TUNED`, those that are not the default."""
