"""A masked-diffusion talker that starts from one that speaks from left to right."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from vocalnet_cli.core.config.talker_schema import MdmSettings, TalkerChoice
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.talker import TALKERS, build_talker
from vocalnet_cli.core.model.talker.adapt import adapt
from vocalnet_cli.core.model.talker.mdm import MdmTalker

SIZES = {"hidden": 32, "ffn": 48, "heads": 4, "decoder_layers": 2, "projector_layers": 1, "codes": 40, "dropout": 0.0}


def left_to_right(kind: str, **changes: object):
    torch.manual_seed(1)
    return build_talker(TypeAdapter(TalkerChoice).validate_python({"kind": kind, **SIZES, **changes})).eval()


def blocks(**changes: object) -> MdmTalker:
    torch.manual_seed(0)
    talker = build_talker(MdmSettings(**{**SIZES, **changes})).eval()
    assert isinstance(talker, MdmTalker)
    return talker


@pytest.mark.parametrize("kind", ["ntp", "mtp-parallel-linear", "mtp-deepseek", "mtp-vocalnet"])
def test_its_layers_compute_what_the_others_did(kind: str):
    source, target = left_to_right(kind), blocks()
    adapt(source, target, "there")
    states = torch.randn(2, 5, SIZES["hidden"])
    assert torch.allclose(target.project(states), source.project(states), atol=1e-6)
    codes = torch.arange(SIZES["codes"])
    assert torch.equal(target.embedding(codes), source.embedding(codes))
    assert torch.equal(target.embedding.weight[target.eos], source.embedding.weight[source.eos])
    assert torch.allclose(target.embedding.weight[target.mask], source.embedding(codes).mean(0))
    rotary = target.rotary(torch.arange(5))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    spoken = source.norm(source.decoder(states, rotary, causal))
    assert torch.allclose(target.stack(states, rotary, causal), spoken, atol=1e-5)
    scores = source.predict(0, source.decoder(states, rotary, causal), 1)[..., 0, :] - source.head.bias[: source.vocab]
    own = target.head(target.stack(states, rotary, causal))
    assert torch.allclose(own, torch.cat([scores[..., :40], scores[..., source.eos, None]], dim=-1), atol=1e-5)


def test_a_wider_thinker_keeps_its_linear_map():
    target = blocks(text_hidden=24)
    before = target.text.weight.clone()
    adapt(left_to_right("ntp"), target, "there")
    assert torch.equal(target.text.weight, before)


@pytest.mark.parametrize(
    ("source", "changes", "told"),
    [
        ({"kind": "group-linear"}, {}, "kind GroupLinear"),
        ({"kind": "ntp"}, {"decoder_layers": 3}, "decoder_layers to 2"),
        ({"kind": "ntp"}, {"decoder_layers": 1}, "decoder_layers to 2"),
        ({"kind": "ntp"}, {"codes": 39}, "codes to 40"),
        ({"kind": "mdm"}, {}, "kind Mdm"),
    ],
)
def test_what_does_not_fit_is_refused(source: dict, changes: dict, told: str):
    assert set(TALKERS) >= {source["kind"]}
    with pytest.raises(VocalnetError) as error:
        adapt(left_to_right(**source), blocks(**changes), "there")
    assert told in error.value.problem + error.value.hint and "there" in error.value.problem
