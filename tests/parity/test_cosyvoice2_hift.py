"""HiFT against the reference's numbers: pitch, both releases' sources, every stage, every saved run."""

from __future__ import annotations

import pytest
import torch

from tests.cosyvoice2 import names, no_noise, sound, tensors, tiny_hift
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory

SOUND, DECODED, PITCH_HZ = 5e-4, 2e-5, 1e-3
RUNS = [n.removesuffix(".wav") for n in names("hift") if n.endswith(".wav")]


def close(found: torch.Tensor, wanted: torch.Tensor, limit: float) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max().item() <= limit


def source(run: str) -> torch.Tensor:
    """The source a run was made with, from the recorded pitch and draws."""
    data, old = tensors("hift"), run.startswith("old.")
    f0 = data["batch2.f0" if run.startswith("batch2") else "f0"]
    noise, phase = no_noise(f0.shape[1], len(f0)), None
    if run.endswith("noise"):
        noise = data["old.noise.sine_noise_randn"].transpose(1, 2) if old else data["noise.sine_noise_randn"]
        if old:
            phase = data["old.noise.phase"][..., 0] / (2 * torch.pi)
            phase[:, 0] = 0  # the reference zeroes the fundamental's
    made = tiny_hift(not old).m_source(f0, noise, Memory(), phase=phase)
    if run.endswith("cached"):
        made[..., : data["cache_source"].shape[-1]] = data["cache_source"]
    return made


@pytest.mark.parametrize("run", RUNS)
@torch.no_grad()
def test_run(run):
    data, hift = tensors("hift"), tiny_hift(not run.startswith("old."))
    mel = data["batch2.mel" if run.startswith("batch2") else "mel"]
    made = source(run)
    if f"{run}.source" in data:
        close(made, data[f"{run}.source"], SOUND)
        close(hift.decode(mel, data[f"{run}.source"]), data[f"{run}.wav"], DECODED)
    close(hift.decode(mel, made), data[f"{run}.wav"], SOUND)
    if run.endswith("zero"):
        close(hift(mel, no_noise(mel.shape[-1], len(mel))), data[f"{run}.wav"], SOUND)
        close(sound(hift, mel)[0], data[f"{run}.wav"], SOUND)


@pytest.mark.parametrize("which", ["", "batch2."])
@torch.no_grad()
def test_pitch(which):
    data = tensors("hift")
    close(tiny_hift().f0_predictor(data[f"{which}mel"], Memory()).float(), data[f"{which}f0"], PITCH_HZ)


@torch.no_grad()
def test_stages():
    data, hift, seen = tensors("hift"), tiny_hift(), {}
    parts = {"conv_pre": hift.conv_pre, "conv_post": hift.conv_post, "resblocks0": hift.resblocks[0]}
    for i in range(3):
        parts |= {f"ups{i}": hift.ups[i], f"source_downs{i}": hift.source_downs[i], f"source_resblocks{i}": hift.source_resblocks[i]}
    hooks = [part.register_forward_hook(lambda _module, _args, out, name=name: seen.__setitem__(name, out)) for name, part in parts.items()]
    hift.decode(data["mel"], data["zero.source"])
    for hook in hooks:
        hook.remove()
    assert {f"zero.stage.{name}" for name in seen} == {n for n in data if n.startswith("zero.stage.")}
    for name, value in seen.items():
        close(value, data[f"zero.stage.{name}"], DECODED)
    close(hift.spectrum(data["zero.source"], Memory()), data["zero.source_stft"], DECODED)
