"""The reference's tiny CosyVoice2 (random weights) from the numeric fixtures, and the drivers upstream runs it with."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import folded, read_settings
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import Flow, FlowState
from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory

FIXTURES = Path(os.environ.get("VOCALNET_FIXTURES", Path(__file__).parent / "assets" / "fixtures")) / "cosyvoice2"
LOOKAHEAD = 3


@lru_cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FIXTURES / f"{name}.safetensors")


@lru_cache
def meta(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def names(file: str) -> list[str]:
    """Names of a file's tensors, without reading them."""
    with safe_open(FIXTURES / f"{file}.safetensors", "pt") as opened:
        return sorted(opened.keys())


def write_config(folder: Path, causal: bool = False, name: str = "cosyvoice2.yaml") -> None:
    """The tiny model's sizes as a released folder tells them (JSON is YAML)."""
    flow, hift = dict(meta("flow_tiny_config")), dict(meta("hift_tiny_config")["config"])
    estimator = dict(flow.pop("estimator"))
    if causal:
        estimator["causal"] = True
    flow["decoder"] = {"estimator": estimator}
    hift["f0_predictor"] = {"cond_channels": hift.pop("f0_cond_channels")}
    (folder / name).write_text(json.dumps({"flow": flow, "hift": hift}))


@lru_cache
def tiny_settings() -> CosyVoice2Settings:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder))
        return read_settings(Path(folder))


@lru_cache
def tiny_flow() -> Flow:
    settings = tiny_settings()
    flow = Flow(settings.flow, settings.codes)
    flow.load_state_dict(tensors("flow_tiny_weights"))
    return flow.eval().requires_grad_(False)


@lru_cache
def tiny_hift(smooth: bool = True) -> Hift:
    hift = Hift(tiny_settings().hift, smooth)
    hift.load_state_dict(folded(tensors("hift_tiny_weights")))
    return hift.eval().requires_grad_(False)


def equal_blocks(total: int, size: int) -> list[int]:
    """Blocks of `size`, the last one what is left."""
    return [min(size, total - at) for at in range(0, total, size)]


def known_mel(prompt_feat: Tensor, frames: int) -> Tensor:
    """Prompt frames [1, T, 80], zeros after them: [1, 80, frames]."""
    mel = torch.zeros(1, 80, frames)
    mel[:, :, : prompt_feat.shape[1]] = prompt_feat.transpose(1, 2)
    return mel


def upstream_flow(data: dict[str, Tensor], tokens: Tensor, block: int | None, finalize: bool, old: bool = False, steps: int = 10) -> Tensor:
    """What upstream recomputes for every chunk: prompt and all tokens [n] in one pass (`block` none: no mask): [1, 80, T], prompt cut."""
    flow = tiny_flow()
    prompt, feat = data["prompt_token"][0], data["prompt_feat"]
    ids = torch.cat([prompt, tokens])[None]

    def begin() -> FlowState:
        return flow.begin(data["embedding"][0], steps)

    count = ids.shape[1] - (0 if finalize else LOOKAHEAD)
    blocks = equal_blocks(count, block or count)
    mel, noise = known_mel(feat, 2 * count), data["rand_noise"][:, :, : 2 * count]
    if old and not finalize:
        # The look-ahead of 2024: all tokens go through the encoder, the last ones' states are dropped.
        everything = equal_blocks(ids.shape[1], block or ids.shape[1])
        mu = flow.encode([begin()], ids, everything)[:, :, : 2 * count]
        out = flow.solve([begin()], mu, blocks, mel, noise)
    else:
        out = flow.extend([begin()], ids, blocks, mel, noise)
    return out[:, :, feat.shape[1] :]


def no_noise(frames: int, batch: int = 1) -> Tensor:
    return torch.zeros(batch, 480 * frames, 9)


def sound(hift: Hift, mel: Tensor, cached: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sound [B, n] and source [B, 1, n] of a whole mel without noise; the source's start replaced by `cached`."""
    f0 = hift.f0_predictor(mel, Memory())
    source = hift.m_source(f0, no_noise(mel.shape[-1], len(mel)), Memory())
    if cached is not None:
        source[..., : cached.shape[-1]] = cached
    return hift.decode(mel, source), source
