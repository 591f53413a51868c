"""Talkers that start from another: of another kind, or of other speech tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from tests.tiny import save_tiny, tiny_model
from vocalnet_cli.core.config.talker_schema import MdmSettings, TalkerChoice
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.model.talker import TALKERS, build_talker
from vocalnet_cli.core.model.talker.adapt import adapt, recode
from vocalnet_cli.core.model.talker.mdm import MdmTalker
from vocalnet_cli.core.training.init import load_init

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


@pytest.mark.parametrize("kind", TALKERS)
@pytest.mark.parametrize("codes", [64, 24])
def test_other_speech_tokens_leave_the_layers_as_they_were(kind: str, codes: int):
    source = left_to_right(kind)
    target = left_to_right(kind, codes=codes)
    drawn = {name: value.clone() for name, value in target.state_dict().items()}
    recode(source, target, SIZES["codes"], codes, "there")
    changed = 0
    for name, value in target.state_dict().items():
        before = source.state_dict()[name]
        if value.shape == before.shape:
            assert torch.equal(value, before), name
            continue
        changed += 1
        at_once = (len(value) - len(before)) // (codes - SIZES["codes"])
        value, before, new = (rows.unflatten(0, (at_once, -1)) for rows in (value, before, drawn[name]))
        assert torch.equal(value[:, codes:], before[:, SIZES["codes"] :]), name  # BOS, EOS and the like
        middle = before[:, : SIZES["codes"]].mean(1, keepdim=True)
        assert torch.allclose(value[:, :codes] - new[:, :codes], middle.expand_as(value[:, :codes]), atol=1e-6)
    assert changed >= 2


@pytest.mark.parametrize("changes", [{"decoder_layers": 1}, {"decoder_layers": 3}, {"hidden": 16}])
def test_other_sizes_beside_other_speech_tokens_are_refused(changes: dict):
    with pytest.raises(VocalnetError) as error:
        recode(left_to_right("ntp"), left_to_right("ntp", codes=64, **changes), SIZES["codes"], 64, "there")
    assert "other speech tokens" in error.value.problem and "there" in error.value.problem


def test_blocks_start_from_a_talker_of_other_speech_tokens(tmp_path: Path):
    source = save_tiny(tmp_path / "ntp", talker={"kind": "ntp"}, codes=40)
    mdm = {"kind": "mdm", "text_chunk": 4, "speech_chunk": 8}
    model, direct = (tiny_model(1, talker=mdm, codes=codes) for codes in (24, 40))
    load_init(model, {"talker": source})
    load_init(direct, {"talker": source})
    wanted = direct.talker.state_dict()
    same = {name for name, value in model.talker.state_dict().items() if value.shape == wanted[name].shape and value.equal(wanted[name])}
    assert set(wanted) - same == {"embedding.weight", "head.weight"}
    assert model.talker.embedding.weight[24].equal(direct.talker.embedding.weight[40])  # the end of speech
