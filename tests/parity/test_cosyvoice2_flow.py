"""The CosyVoice2 flow against the reference's numbers: modules with their intermediate values, and every saved run."""

from __future__ import annotations

import re

import pytest
import torch

from tests.cosyvoice2 import LOOKAHEAD, equal_blocks, meta, names, tensors, tiny_flow, tiny_settings, upstream_flow
from vocalnet_cli.core.model.vocoder.cosyvoice2.attention import Attending, Blocks
from vocalnet_cli.core.model.vocoder.cosyvoice2.encoder import EncoderPass, Places, position_features
from vocalnet_cli.core.model.vocoder.cosyvoice2.estimator import EstimatorPass
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import fixed_noise
from vocalnet_cli.core.model.vocoder.cosyvoice2.stream import Memory

MODULE, MEL = 2e-5, 2e-4
BLOCK = tiny_settings().trained_block


def close(found: torch.Tensor, wanted: torch.Tensor, limit: float) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max().item() <= limit


def recorded(**modules: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Fills with each module's output when it runs."""
    seen: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        module.register_forward_hook(lambda _module, _args, out, name=name: seen.__setitem__(name, out))
    return seen


def block_mask(count: int, size: int | None) -> torch.Tensor | None:
    return Blocks(tuple(equal_blocks(count, size or count))).mask(torch.arange(count))


def encoder_pass(count: int, block: int | None, valid: torch.Tensor | None = None) -> EncoderPass:
    width = tiny_settings().flow.hidden

    def half(count: int, size: int | None, valid: torch.Tensor | None) -> tuple[Attending, Places]:
        at = position_features(torch.arange(count), width)
        mask = block_mask(count, size) if valid is None else valid[:, None, None]
        return Attending([mask]), Places(at[None], [at])

    tokens, token_places = half(count, block, valid)
    frames, frame_places = half(2 * count, block and 2 * block, None if valid is None else valid.repeat_interleave(2, dim=1))
    return EncoderPass(tokens, token_places, frames, frame_places, Memory())


@pytest.mark.parametrize("name", [n for n in names("flow_modules") if re.fullmatch(r"encoder\.a\..*\.out", n)])
@torch.no_grad()
def test_encoder(name):
    data, encoder = tensors("flow_modules"), tiny_flow().encoder
    xs, wanted = data["encoder.a.xs"], data[name]
    count = wanted.shape[1] // 2
    following = LOOKAHEAD if "context" in name else 0
    block = BLOCK if ".chunk" in name else None
    close(encoder(xs[:, : count + following], following, encoder_pass(count, block)), wanted, MODULE)


@torch.no_grad()
def test_encoder_intermediates():
    data, encoder = tensors("flow_modules"), tiny_flow().encoder
    seen = recorded(
        embed_out=encoder.embed,
        pre_lookahead_out=encoder.pre_lookahead_layer,
        encoder0_out=encoder.encoders[0],
        encoders_out=encoder.encoders[-1],
        up_layer_out=encoder.up_layer,
        up_embed_out=encoder.up_embed,
    )
    xs = data["encoder.a.xs"]
    encoder(xs, 0, encoder_pass(xs.shape[1], None))
    for name, value in seen.items():
        close(value, data[f"encoder.a.full.{name}"], MODULE)
    distances = torch.arange(xs.shape[1] - 1, -xs.shape[1], -1)
    close(position_features(distances, xs.shape[2])[None], data["encoder.a.full.pos_emb"], MODULE)


@torch.no_grad()
def test_encoder_with_padding():
    data, encoder = tensors("flow_modules"), tiny_flow().encoder
    xs, lengths = data["encoder.b.xs"], data["encoder.b.lens"]
    valid = torch.arange(xs.shape[1]) < lengths[:, None]
    out = encoder(xs, 0, encoder_pass(xs.shape[1], None, valid))
    for row, length in enumerate(lengths.tolist()):
        close(out[row, : 2 * length], data["encoder.b.full.out"][row, : 2 * length], MODULE)


def estimate(padded: bool, block: int | None) -> torch.Tensor:
    data, estimator = tensors("flow_modules"), tiny_flow().estimator
    x, valid = data["estimator.x"], data["estimator.mask_pad" if padded else "estimator.mask_ones"]
    seen = (valid > 0)[:, None]
    blocks = block_mask(x.shape[-1], block)
    mask = seen if blocks is None else seen & blocks
    doing = EstimatorPass(estimator.times(data["estimator.t"]), Attending([mask]), Memory(), valid.mT if padded else None)
    return estimator(x, data["estimator.mu"], data["estimator.spks"], data["estimator.cond"], doing)


@pytest.mark.parametrize("name", [n for n in names("flow_modules") if re.fullmatch(r"estimator\.\w+\.out", n)])
@torch.no_grad()
def test_estimator(name):
    found = estimate("_pad" in name, 2 * BLOCK if ".chunk" in name else None)
    close(found, tensors("flow_modules")[name], MODULE)


@torch.no_grad()
def test_estimator_intermediates():
    data, estimator = tensors("flow_modules"), tiny_flow().estimator
    seen = recorded(
        time_mlp_out=estimator.time_mlp,
        down0_resnet_out=estimator.down_blocks[0][0],
        down0_tfm0_out=estimator.down_blocks[0][1][0],
        down0_down_out=estimator.down_blocks[0][2],
        midlast_resnet_out=estimator.mid_blocks[-1][0],
        up0_resnet_out=estimator.up_blocks[0][0],
        final_block_out=estimator.final_block,
    )
    estimate(False, None)
    seen["time_sinusoid"] = estimator.time_mlp.sinusoids(data["estimator.t"])
    for name, value in seen.items():
        rows = name.endswith(("_resnet_out", "_down_out", "_block_out"))  # ours; the reference has the channels first
        close(value.mT if rows else value, data[f"estimator.full.{name}"], MODULE)


@pytest.mark.parametrize("name", [n for n in names("flow_inference") if n.endswith(".mel")])
@torch.no_grad()
def test_inference(name):
    data = dict(tensors("flow_inference"))
    release, run, _ = name.split(".")
    if run.endswith("_noprompt"):
        data["prompt_token"], data["prompt_feat"] = data["prompt_token"][:, :0], data["prompt_feat"][:, :0]
    masked = run.startswith("stream") or (release == "old" and not run.endswith("_nochunk"))
    steps = int(found[1]) if (found := re.search(r"_n(\d+)$", run)) else meta("flow_inference_meta")["n_timesteps"]
    out = upstream_flow(data, data["token"][0], BLOCK if masked else None, "nonfinal" not in run, release == "old", steps)
    close(out, data[name], MEL)


@torch.no_grad()
def test_the_ode_starts_and_moves_as_in_the_reference():
    data, flow = tensors("flow_inference"), tiny_flow()
    ids = torch.cat([data["prompt_token"], data["token"]], dim=1)
    state = flow.begin(data["embedding"][0])
    mu = flow.encode([state], ids, [ids.shape[1]])
    close(mu, data["new.offline.mu"], MODULE)
    close(state.speaker[:1], data["new.offline.spks"], MODULE)
    span = torch.tensor([0.0, *[step.length for step in state.ode]]).cumsum(0)
    close(span, data["t_span_cosine_10"], 1e-6)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    flow.estimator.register_forward_hook(lambda _module, args, out: seen.append((args[0], out)))
    flow.solve([state], mu, [ids.shape[1]], data["new.offline.cond"], data["rand_noise"])
    close(torch.stack([x[0] for x, _ in seen]), data["new.offline.x_steps"], MEL)
    close(seen[0][1], data["new.offline.step0_dphi"], MODULE)


def test_the_noise_is_upstreams():
    about = meta("flow_inference_meta")["upstream_rand_noise"]
    noise = fixed_noise(0, 15_000)
    close(noise[0, :8], torch.tensor(about["first8"]), 1e-6)
    close(noise[79, :4], torch.tensor(about["row79_first4"]), 1e-6)
    assert noise.double().sum().item() == pytest.approx(about["sum"])
    assert torch.equal(fixed_noise(14_990, 20)[:, :10], noise[:, -10:])
