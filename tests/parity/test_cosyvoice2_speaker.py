"""The speaker encoder against 3D-Speaker's CAM++."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from vocalnet_cli.core.model.voice.load import load_speaker_encoder
from vocalnet_cli.core.model.voice.speaker_encoder import SpeakerEncoder


@pytest.fixture(scope="module")
def saved(fixtures_dir):
    return load_file(fixtures_dir / "cosyvoice2" / "campplus.safetensors")


@pytest.fixture(scope="module")
def encoder(fixtures_dir):
    return load_speaker_encoder(fixtures_dir / "cosyvoice2" / "campplus_tiny_weights.safetensors")


def shapes(module):
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def test_sizes_come_from_the_file(encoder, fixtures_dir):
    about = json.loads((fixtures_dir / "cosyvoice2" / "campplus_config.json").read_text())
    assert shapes(encoder) == about["keys"]
    assert encoder.xvector.dense.linear.out_channels == about["config"]["embedding_size"]


@pytest.mark.parametrize(("feat", "emb"), [("feat", "emb"), ("feat_long", "emb_long")])
def test_embedding(encoder, saved, feat, emb):
    assert_close(encoder(saved[feat]), saved[emb], atol=1e-4, rtol=0)


def test_head(encoder, saved):
    assert_close(encoder.head(saved["feat"].transpose(1, 2)), saved["head_out"], atol=1e-4, rtol=0)


def test_rows_of_a_batch_are_each_alone(encoder, saved):
    rows = torch.cat([saved["feat_long"], saved["feat_long"].flip(1)])
    together = encoder(rows)
    assert_close(together[:1], saved["emb_long"], atol=1e-4, rtol=0)
    assert_close(together[1:], encoder(rows[1:]), atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_names_and_shapes_of_the_released_model(fixtures_dir):
    wanted = json.loads((fixtures_dir / "cosyvoice2" / "real_state_dict_shapes.json").read_text())["campplus (3D-Speaker names)"]
    with torch.device("meta"):
        assert shapes(SpeakerEncoder()) == wanted
        sizes = SpeakerEncoder.sizes_of({name: torch.empty(shape) for name, shape in wanted.items()})
        assert shapes(SpeakerEncoder(**sizes)) == wanted
