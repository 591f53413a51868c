"""The S3 speech tokenizer against the `s3tokenizer` package's numbers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from vocalnet_cli.core.model.voice.load import load_s3_tokenizer
from vocalnet_cli.core.model.voice.s3_tokenizer import S3Tokenizer, code_index, speech_tokens, token_count, windows
from vocalnet_cli.core.units import COSYVOICE2_CODES


@pytest.fixture(scope="module")
def saved(fixtures_dir):
    return load_file(fixtures_dir / "cosyvoice2" / "s3tokenizer_v2.safetensors")


@pytest.fixture(scope="module")
def meta(fixtures_dir):
    return json.loads((fixtures_dir / "cosyvoice2" / "s3tokenizer_v2_meta.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(fixtures_dir):
    return load_s3_tokenizer(fixtures_dir / "cosyvoice2" / "s3tokenizer_v2_tiny_weights.safetensors")


def test_sizes_come_from_the_file(tokenizer, meta):
    config = meta["config"]
    assert {name: list(tensor.shape) for name, tensor in tokenizer.state_dict().items()} == meta["keys"]
    assert tokenizer.encoder.conv1.in_channels == config["n_mels"]
    assert len(tokenizer.encoder.blocks) == config["n_audio_layer"]
    assert tokenizer.encoder.blocks[0].attn_ln.eps == meta["attn_ln_eps"] and tokenizer.encoder.blocks[0].mlp_ln.eps == meta["mlp_ln_eps"]


@pytest.mark.parametrize("row", [0, 1])
def test_batch(tokenizer, saved, row):
    tokens, lengths = tokenizer(saved["mel"], saved["mel_len"])
    count = int(saved["code_len"][row])
    assert lengths[row] == count
    assert tokens[row, :count].tolist() == saved["code"][row, :count].tolist()


@pytest.mark.parametrize("row", [0, 1])
def test_states_and_levels_before_rounding(tokenizer, saved, row):
    states = tokenizer.encoder(saved["mel"], saved["mel_len"])
    count = int(saved["code_len"][row])
    assert_close(states[row, :count], saved["hidden"][row, :count], atol=2e-5, rtol=0)
    levels = tokenizer.quantizer["_codebook"].levels(states)
    assert_close(levels[row, :count], saved["fsq_pre_round"][row, :count], atol=2e-5, rtol=0)


INNER = {
    "conv1_pre_gelu": lambda encoder: encoder.conv1,
    "conv2_pre_gelu": lambda encoder: encoder.conv2,
    "block0_attn": lambda encoder: encoder.blocks[0].attn,
    "block0": lambda encoder: encoder.blocks[0],
}


@pytest.mark.parametrize("name", INNER)
def test_inner_states_of_the_padded_row(tokenizer, saved, name):
    kept = []
    hook = INNER[name](tokenizer.encoder).register_forward_hook(lambda _module, _inputs, output: kept.append(output[1]))
    tokenizer(saved["mel"], saved["mel_len"])
    hook.remove()
    count = int(saved["code_len"][1])
    (found,), wanted = kept, saved[f"inter.{name}"][0]
    if name.startswith("conv"):
        count = min(count, wanted.shape[1])
        found, wanted = found.T, wanted.T
    assert_close(found[:count], wanted[:count], atol=2e-5, rtol=0)


def test_single(tokenizer, saved):
    tokens, lengths = tokenizer(saved["mel"][:1], saved["mel_len"][:1])
    assert lengths.tolist() == saved["single.code_len"].tolist()
    assert tokens.tolist() == saved["single.code"].tolist()


def long_mel(meta) -> torch.Tensor:
    assert meta["long_mel_formula"].startswith("mel[m,t]=0.5*sin(0.05*(m+1)+0.013*((m mod 17)+1)*t)+0.3*sin(0.0007*t*t/100+m)")
    m = torch.arange(128, dtype=torch.float64)[:, None]
    t = torch.arange(meta["long_frames"], dtype=torch.float64)
    return (0.5 * torch.sin(0.05 * (m + 1) + 0.013 * (m % 17 + 1) * t) + 0.3 * torch.sin(0.0007 * t * t / 100 + m)).float()


@pytest.mark.parametrize("batch", [1, 8])
def test_more_than_30_seconds(tokenizer, saved, meta, batch):
    (found,) = speech_tokens(tokenizer, [long_mel(meta)], batch=batch)
    wanted = saved["long.code"][0]
    assert len(found) == len(wanted) == int(saved["long.code_len"])
    assert (found != wanted).float().mean() <= 0.01


def test_lists_of_any_lengths_are_each_alone(tokenizer, saved, meta):
    mels = [saved["mel"][1, :, :88], long_mel(meta), saved["mel"][0], saved["mel"][0, :, :1]]
    together = speech_tokens(tokenizer, mels, batch=3)
    assert together[0].tolist() == saved["code"][1, :22].tolist() and together[2].tolist() == saved["single.code"][0].tolist()
    assert [len(tokens) for tokens in together] == [22, 863, 32, 1]
    assert together[3].tolist() == speech_tokens(tokenizer, mels[3:])[0].tolist()


@pytest.mark.parametrize("case", range(5))
def test_digits_to_index(saved, case):
    assert int(code_index(saved["fsq_unit.levels"][case] - 1)) == int(saved["fsq_unit.index"][case])


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 2999, 3000, 3001, 5200, 5201, 5210, 5600, 5601, 8200, 12345])
def test_windows_cover_every_token_once(frames):
    cuts = windows(frames)
    assert cuts[0][0] == 0 and cuts[-1][1] == frames
    assert all(end - start <= 3000 for start, end in cuts)
    assert all(before[1] - after[0] == 400 for before, after in zip(cuts, cuts[1:], strict=False))

    def positions(mel, lengths):
        """Each token says where in the recording it lies: the first frame of its four is that number times 4."""
        count = token_count(lengths)
        return mel[:, 0, ::4].long(), count

    (found,) = speech_tokens(positions, [torch.arange(frames).float()[None] / 4])
    assert found.tolist() == list(range(token_count(frames)))


def test_names_and_shapes_of_the_released_model(fixtures_dir):
    wanted = json.loads((fixtures_dir / "cosyvoice2" / "real_state_dict_shapes.json").read_text())["s3tokenizer v2 (pip s3tokenizer names)"]
    with torch.device("meta"):
        ours = S3Tokenizer()
        sizes = S3Tokenizer.sizes_of({name: torch.empty(shape) for name, shape in wanted.items()})
        from_file = S3Tokenizer(**sizes)
    assert {name: list(tensor.shape) for name, tensor in ours.state_dict().items()} == wanted
    assert {name: list(tensor.shape) for name, tensor in from_file.state_dict().items()} == wanted
    assert 3 ** sizes["digits"] == COSYVOICE2_CODES
