"""Settings of the vocoders: sizes as checkpoints have them, how they stream, and how they are trained.

A recipe's `vocoder.kind` picks it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from vocalnet_cli.core.config.talker_schema import Settings
from vocalnet_cli.core.units import VOCODER_HOP

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
    """Overtones above the fundamental. A filter can be loud only where they or the noise are."""
    amplitude: float = Field(0.1, gt=0)
    """Amplitude of a voiced sine."""
    noise: float = Field(0.003, ge=0)
    """Standard deviation of the noise on a voiced sine; unvoiced noise has a third of the amplitude. A filter has noise apart."""
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
    output: Literal["spectrum", "filter"] = "spectrum"
    """What the convolutions give: the spectrum itself, as released, or a filter for the spectra of the source and of white noise."""
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
        if self.istft_fft >= 2 * VOCODER_HOP:
            raise ValueError(f"istft_fft is {self.istft_fft}: it must be below {2 * VOCODER_HOP}, or one frame could not be spoken")
        return self

    @property
    def noises(self) -> int:
        """Channels of noise that the source takes: one for each sine, or one beside them all."""
        return 1 if self.output == "filter" else self.harmonics + 1


class TokenizerSettings(Settings):
    """Sizes of nano's own speech tokenizer, as stage `speech-tokenizer` trained it; only its way to tokens is kept."""

    latent: int = Field(48, gt=0, le=160)
    """Width of a codebook entry."""
    hidden: int = Field(192, gt=0)
    """Width of the convolutions between frames and tokens."""
    blocks: int = Field(3, gt=0)
    """Convolutions on the way to tokens; each sees one token further to either side."""


class CosyVoice2Settings(Settings):
    """The CosyVoice2 vocoder (arXiv 2412.10117): flow matching from speech tokens to mel, HiFT from mel to 24 kHz."""

    TUNED: ClassVar = (
        "first_tokens",
        "block_tokens",
        "context",
        "window_tokens",
        "lookahead_frames",
        "hold_mel",
        "steps",
        "guidance",
        "flow_dtype",
    )
    """Settings of how it speaks, which any weights take; the others are those of the weights."""

    kind: Literal["cosyvoice2"] = "cosyvoice2"
    codes: int = Field(6561, gt=1)
    """Speech codebook."""
    tokenizer: TokenizerSettings | None = None
    """A speech tokenizer of its own (nano's); none = the tokens are those of CosyVoice2's S3 tokenizer."""
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
    hold_mel: bool = False
    """Whether HiFT's sound is scaled, band by band and frame by frame, until its mel is the flow's; it waits four frames (80 ms) more."""
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
        if samples != VOCODER_HOP:
            raise ValueError(f"hift.upsample_rates and hift.istft_hop make {samples} samples a frame: they must make {VOCODER_HOP}")
        return self


class GriffinLimSettings(Settings):
    """Speech tokens to sound: mel frames by nano's own tokenizer, then phase reconstruction over overlapped windows."""

    TUNED: ClassVar = ("iterations", "sharpness", "first_tokens", "block_tokens", "overlap_tokens")
    """Settings of how it speaks, which any weights take; the others are those of the weights."""

    kind: Literal["griffin-lim"] = "griffin-lim"
    codes: int = Field(512, gt=1)
    """Entries of the codebook."""
    latent: int = Field(48, gt=0, le=160)
    """Width of a codebook entry."""
    hidden: int = Field(192, gt=0)
    """Width of the convolutions between frames and tokens, either way."""
    blocks: int = Field(3, gt=0)
    """Convolutions on the way to tokens; each sees one token further to either side."""
    iterations: int = Field(32, gt=0)
    """Phase reconstruction rounds a window."""
    sharpness: float = Field(0.3, ge=0, le=2)
    """How much further formants stand out than the codebook says, whose frames are means of many and so too smooth; 0 = as it says."""
    first_tokens: int = Field(4, gt=0)
    """Tokens of the first window; fewer = earlier first sound. More than overlap_tokens, or the first window is silent."""
    block_tokens: int = Field(6, gt=0)
    """Tokens each later window adds; fewer = earlier sound, more work a second."""
    overlap_tokens: int = Field(1, ge=0)
    """Newest tokens a window leaves open for the next one to improve; more = steadier phase, later sound."""


def _vocoder_kind(value: Any) -> Any:
    return value.get("kind", "griffin-lim") if isinstance(value, dict) else getattr(value, "kind", None)


VocoderSettings = Annotated[
    Annotated[GriffinLimSettings, Tag("griffin-lim")] | Annotated[CosyVoice2Settings, Tag("cosyvoice2")], Discriminator(_vocoder_kind)
]
"""Settings of a vocoder, by `kind`; without one it is `griffin-lim`."""


class VocoderElsewhere(Settings):
    """What config.json of a model says of a vocoder whose weights it does not carry."""

    place: str = Field(min_length=1)
    """A CosyVoice2 folder, or a hub id."""
    settings: dict[str, Any] = {}
    """Of `CosyVoice2Settings.TUNED`, those that are not the default."""


class FlowTraining(Settings):
    """How the flow learns (arXiv 2412.10117, section 2.3)."""

    drop: float = Field(0.2, ge=0, le=1)
    """Share of examples whose tokens, speaker and known frames are hidden, so that the flow can guide itself (classifier-free)."""
    prompt_share: float = Field(0.5, ge=0, le=1)
    """Share of examples whose first frames are given, as a voice prompt's are."""
    longest_prompt: float = Field(0.3, ge=0, le=1)
    """Largest part of an example that is given."""
    prior: float = Field(0.0, ge=0)
    """Weight of the error of the encoder's own frames beside that of the velocity (arXiv 2105.06337, equation 13); 0 as released."""


class HiftTraining(Settings):
    """How HiFT learns: as HiFi-GAN (arXiv 2010.05646, section 2.3), with spectral and pitch losses and a judge of spectrograms."""

    segment_frames: int = Field(50, gt=0)
    """Mel frames (20 ms) of the piece cut out of a recording."""
    judged_from: float = Field(0.0, ge=0, le=1)
    """Part of the steps without judges (1: all): the spectral losses alone come first, at a third of the cost."""
    mel: float = Field(45.0, ge=0)
    """Weight of the error of the log-mel (whole band)."""
    mel_windows: tuple[int, ...] = ()
    """Windows of further log-mels, in samples, over which that error is averaged; the vocoder's own has 1920."""
    spectral: float = Field(1.0, ge=0)
    """Weight of the multi-resolution spectral loss (arXiv 1910.11480, section 3.2)."""
    features: float = Field(2.0, ge=0)
    """Weight of feature matching."""
    adversarial: float = Field(1.0, ge=0)
    """Weight of the judges' opinion."""
    pitch: float = Field(1.0, ge=0)
    """Weight of the error of the pitch, in 100 Hz."""
    resolutions: tuple[int, ...] = (512, 1024, 2048)
    """Windows of the spectral loss and of the spectrogram judges, in samples; the hop is a quarter."""
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Periods the period judges fold the sound by, in samples."""
    period_channels: int = Field(32, gt=0)
    """Channels of a period judge's first layer; the last has 32 times as many."""
    spectrum_channels: int = Field(32, gt=0)
    """Channels of a spectrogram judge (arXiv 2106.07889)."""

    @model_validator(mode="after")
    def _windows_fit(self) -> HiftTraining:
        samples = self.segment_frames * VOCODER_HOP
        for key in ("mel_windows", "resolutions"):
            for window in getattr(self, key):
                if not 4 <= window < 2 * samples:
                    raise ValueError(f"{key} has {window}: a window must have 4 samples or more and less than twice the piece's {samples}")
        return self
