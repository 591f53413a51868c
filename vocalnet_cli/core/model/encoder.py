"""Speech encoder: log-mel frames to one state each 20 ms, by transformers' Whisper encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from vocalnet_cli.core.audio.mel import encoder_mel
from vocalnet_cli.core.config.schema import EncoderSettings
from vocalnet_cli.core.units import ENCODER_HOP, ENCODER_STRIDE, QUESTION_HZ


def encoder_frames(mel_frames: Tensor) -> Tensor:
    """Encoder frames [B] that `mel_frames` [B] log-mel frames turn into (the second convolution has stride 2)."""
    return (mel_frames + ENCODER_STRIDE - 1) // ENCODER_STRIDE


class SpeechEncoder(WhisperEncoder):
    """Whisper's encoder that can also hear less than its whole window.

    With padding `window` the input is padded with silence to the window and nothing is masked, as Whisper was trained and the
    released models were run. With `fit` only the speech itself is computed: padding inside a batch is masked, so a
    question gives the same states alone and in a batch.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        window_frames = round(settings.window_s * QUESTION_HZ) // ENCODER_HOP
        config = WhisperConfig(
            d_model=settings.hidden,
            encoder_layers=settings.layers,
            encoder_attention_heads=settings.heads,
            encoder_ffn_dim=settings.ffn,
            num_mel_bins=settings.mel_bins,
            max_source_positions=window_frames // ENCODER_STRIDE,
            dropout=settings.dropout,
        )
        config._attn_implementation = "sdpa"
        super().__init__(config)
        self.settings = settings
        self.window_frames = window_frames
        self.window_samples = window_frames * ENCODER_HOP

    def features(self, samples: Tensor) -> Tensor:
        """Log-mel [bins, F] of one window of 16 kHz samples, padded to the whole window if the settings say so."""
        pad_to = self.window_samples if self.settings.padding == "window" else None
        return encoder_mel(samples, self.settings.mel_bins, pad_to)

    def encode(self, mel: Tensor, mel_frames: Tensor) -> Tensor:
        """States [B, T, hidden] of a batch of log-mels [B, bins, F]; `mel_frames` [B] counts each row's real frames.

        Rows past a question's own frames are meaningless.
        """
        if self.settings.padding == "window":
            return self.forward(mel).last_hidden_state
        return self.layer_norm(self.layer_states(mel, mel_frames)[-1])

    def layer_states(self, mel: Tensor, mel_frames: Tensor) -> list[Tensor]:
        """Output [B, T, hidden] of each layer, padding masked everywhere (before the final norm)."""
        valid = torch.arange(mel.shape[-1], device=mel.device) < mel_frames[:, None]
        mel = mel * valid[:, None]
        frames = nn.functional.gelu(self.conv1(mel)) * valid[:, None]
        frames = nn.functional.gelu(self.conv2(frames)).transpose(1, 2)
        frames = frames + self.embed_positions.weight[: frames.shape[1]]
        frames = nn.functional.dropout(frames, p=self.dropout, training=self.training)
        heard = torch.arange(frames.shape[1], device=mel.device) < encoder_frames(mel_frames)[:, None]
        mask = heard[:, None, None, :].expand(-1, 1, frames.shape[1], -1)
        # On a CPU the fused attention's backward pass takes longer than plain matrix products, which want a mask to add.
        plain = self.training and mel.device.type == "cpu"
        self.config._attn_implementation = "eager" if plain else "sdpa"
        if plain:
            mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        states = []
        for layer in self.layers:
            frames = layer(frames, mask)
            states.append(frames)
        return states


def build_encoder(settings: EncoderSettings) -> SpeechEncoder:
    """An encoder of these sizes with random weights (Whisper's sinusoidal positions included)."""
    return SpeechEncoder(settings)
