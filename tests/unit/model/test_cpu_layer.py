"""A talker's training step on a CPU, rows side by side and both ways written out, against transformers' layers and autograd."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from vocalnet_cli.core.config.talker_schema import MtpDeepseekSettings, MtpVocalnetSettings
from vocalnet_cli.core.model.talker import autoregressive, backbone, build_talker, cpu_layer, side_by_side
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.training.loop import checkpoint_layers

SIZES = {"hidden": 32, "ffn": 48, "heads": 2, "modules": 2, "codes": 24}
TEXT, SPEECH = [6, 1, 3, 6], [40, 3, 17, 38]


def talker(kind: type = MtpVocalnetSettings, compat: str = "paper", std: float = 0.2, **more) -> nn.Module:
    torch.manual_seed(0)
    built = build_talker(kind(**SIZES, **{"dropout": 0.0, **more}), compat).train()
    for name, parameter in built.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)  # so that a norm's weight in the wrong place is noticed
        elif parameter.dim() == 2:
            nn.init.normal_(parameter, std=std)
    return built


def batch() -> tuple[Tensor, Tensor, Lengths]:
    chance = torch.Generator().manual_seed(1)
    hidden = torch.randn(len(TEXT), max(TEXT), SIZES["hidden"], generator=chance)
    speech = torch.randint(SIZES["codes"], (len(TEXT), max(SPEECH)), generator=chance)
    return hidden, speech, Lengths(torch.tensor(TEXT), torch.tensor(SPEECH), torch.tensor([True, False, True, False]))


def gradients(model: nn.Module, low: bool = False) -> dict[str, Tensor]:
    """The loss and all gradients of a step, the input's too."""
    hidden, speech, lengths = batch()
    hidden.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if low else nullcontext():
        loss = model.loss(hidden, speech, lengths).total
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, [hidden, *parameters])
    return {"loss": loss.detach(), **dict(zip(["hidden", *names], found, strict=True))}


@pytest.fixture
def other_way(monkeypatch):
    """Calls a function as on another device: transformers' layers, padded rows."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            for module in (backbone, autoregressive):
                patch.setattr(module, "side_by_side", lambda states: False)
            return function(*arguments)

    return call


def assert_alike(found: dict[str, Tensor], wanted: dict[str, Tensor], rtol: float) -> None:
    for name, tensor in wanted.items():
        difference = float((found[name] - tensor).norm() / tensor.norm())
        assert difference < rtol, f"{name}: {difference}"


@pytest.mark.parametrize("at_once", [side_by_side.SCORES_AT_ONCE, 1])
@pytest.mark.parametrize("kind", [MtpVocalnetSettings, MtpDeepseekSettings])
@pytest.mark.parametrize("compat", ["paper", "official"])
def test_gradients_are_those_of_transformers_layers(kind, compat, at_once, other_way, monkeypatch):
    monkeypatch.setattr(side_by_side, "SCORES_AT_ONCE", at_once)
    model = talker(kind, compat)
    assert_alike(gradients(model), other_way(gradients, model), rtol=2e-5)


def test_half_precision_is_no_farther_from_single_than_transformers_layers(other_way):
    model = talker(std=0.05)
    exact = other_way(gradients, model)
    ours, theirs = gradients(model, True), other_way(gradients, model, True)
    errors = [sum(float((low[name] - exact[name]).norm() / exact[name].norm()) for name in exact) / len(exact) for low in (ours, theirs)]
    assert errors[0] < 1.2 * errors[1] and errors[0] < 0.02, errors


def test_recomputed_layers_give_the_same_gradients():
    model = talker(dropout=0.3)
    torch.manual_seed(3)
    wanted = gradients(model)
    checkpoint_layers(model)
    torch.manual_seed(3)
    assert_alike(gradients(model), wanted, rtol=1e-6)


def test_dropout_leaves_out_what_its_coins_say(monkeypatch):
    """Against autograd through plain attention with the same coins."""
    sizes = cpu_layer.Sizes(heads=2, eps=1e-6, dropout=0.25, dtype=torch.float32)
    drawn = []
    monkeypatch.setattr(cpu_layer, "_coins", lambda seen, s, draw=cpu_layer._coins: drawn.append(draw(seen, s)) or drawn[-1])
    side = SimpleNamespace(
        groups=[side_by_side.Group(2, 5, 0, torch.zeros(1, 1, 5, 5))],
        cos=torch.ones(10, 1, 4),
        sin=torch.zeros(10, 1, 4),
        to_rows=lambda rows: rows,
        to_places=lambda rows, blank=False: rows,
    )
    parts, above = torch.randn(10, 6, 8), torch.randn(10, 16)
    heard, coins = cpu_layer._attention(parts, side, sizes)
    found = cpu_layer._attention_backward(parts, above, coins, side, sizes)
    plain = parts.clone().requires_grad_()
    q, k, v = (part.view(2, 5, 2, 8).transpose(1, 2) for part in plain.chunk(3, dim=1))
    kept = (drawn[0] != 0).view(2, 2, 5, 5)
    wanted = (((q @ k.transpose(2, 3)).softmax(-1) * kept) @ v).transpose(1, 2).reshape(10, 16)
    torch.testing.assert_close(heard, wanted)
    torch.testing.assert_close(found, torch.autograd.grad(wanted, plain, above)[0].flatten(1))


def test_dropout_is_as_frequent_as_asked_and_leaves_the_mean():
    sizes = cpu_layer.Sizes(heads=1, eps=1e-6, dropout=0.1, dtype=torch.float32)
    coins = cpu_layer._coins(torch.empty(100, 100, 101), sizes)
    assert sorted(coins.unique().tolist()) == [-1, 0]
    assert float((coins == 0).float().mean()) == pytest.approx(0.1, abs=2e-3)
    kept = cpu_layer._left(torch.full((2000, 101), 2.0), coins.view(-1, 101)[:2000])
    assert float(kept.mean()) * cpu_layer._lifted(sizes) == pytest.approx(2.0, rel=1e-2)


def test_padding_is_not_computed(monkeypatch):
    counts = []

    def counted(layer: nn.Module, rows: Tensor, side: side_by_side.SideBySide) -> Tensor:
        counts.append(len(rows))
        return cpu_layer.layer_step(layer, rows, side)

    monkeypatch.setattr(backbone, "layer_step", counted)
    gradients(talker())
    assert counts[-1] == sum(TEXT) + sum(SPEECH) + 2 * len(TEXT)
