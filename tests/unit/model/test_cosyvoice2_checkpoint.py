"""Released CosyVoice2 folders: both spellings of weight norm, both file types, both generations; the real model's names and sizes."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.cosyvoice2 import meta, tensors, tiny_hift, tiny_settings, write_config
from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.vocoder.cosyvoice2.checkpoint import folded, load_released, read_settings
from vocalnet_cli.core.model.vocoder.cosyvoice2.flow import Flow
from vocalnet_cli.core.model.vocoder.cosyvoice2.hift import Hift

RELEASED = """
sample_rate: 24000
chunk_size: 25
token_mel_ratio: 2
__set_seed: !apply:random.seed [1986]
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    vocab_size: 6561
    spk_embed_dim: 192
    pre_lookahead_len: 3
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        {output_size: 512, attention_heads: 8, linear_units: 2048, num_blocks: 6, static_chunk_size: !ref <chunk_size>}
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        cfm_params: !new:omegaconf.DictConfig {content: {t_scheduler: cosine}}
        estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
            channels: [256]
            attention_head_dim: 64
            n_blocks: 4
            num_mid_blocks: 12
            num_heads: 8
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    base_channels: 512
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params: {n_fft: 16, hop_len: 4}
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor {cond_channels: 512}
"""


def legacy(weights):
    """The older spelling of weight norm, as GAN training saves it."""
    spelt = {"original0": "weight_g", "original1": "weight_v"}
    return {
        f"generator.{name.replace('.parametrizations.weight.', '.')}".replace(name[-9:], spelt.get(name[-9:], name[-9:])): tensor
        for name, tensor in weights.items()
    }


def write_folder(folder, pt=True, old_names=False, **config):
    write_config(folder, **config)
    hift = tensors("hift_tiny_weights")
    parts = {"flow": tensors("flow_tiny_weights"), "hift": legacy(hift) if old_names else hift}
    for name, part in parts.items():
        if pt:
            torch.save(part, folder / f"{name}.pt")
        else:
            save_file(part, folder / f"{name}.safetensors")
    return folder


def empty():
    settings = tiny_settings()
    return Flow(settings.flow, settings.codes), Hift(settings.hift)


@pytest.mark.parametrize("pt", [True, False])
@pytest.mark.parametrize("old_names", [True, False])
def test_weights_load(tmp_path, pt, old_names):
    flow, hift = empty()
    load_released(flow, hift, write_folder(tmp_path, pt, old_names))
    wanted = tiny_hift().state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in hift.state_dict().items())
    assert torch.equal(flow.input_embedding.weight, tensors("flow_tiny_weights")["input_embedding.weight"])
    assert set(legacy(tensors("hift_tiny_weights"))) == {
        f"generator.{name}" for name in meta("hift_tiny_config")["keys_legacy_weight_norm"]
    }


def test_the_real_models_names_and_sizes():
    shapes = meta("real_state_dict_shapes")
    settings = CosyVoice2Settings()
    with torch.device("meta"):
        flow, hift = Flow(settings.flow, settings.codes), Hift(settings.hift)
        released = {name: torch.empty(shape) for name, shape in shapes["hift.pt (legacy weight_norm names)"].items()}
        assert len(released) == 328
        wanted = {name: tuple(tensor.shape) for name, tensor in folded(released).items()}
    assert {name: tuple(tensor.shape) for name, tensor in hift.state_dict().items()} == wanted
    assert {name: list(tensor.shape) for name, tensor in flow.state_dict().items()} == shapes["flow.pt"]
    assert sum(p.numel() for p in flow.parameters()) == pytest.approx(112.55e6, rel=1e-3)


def test_sizes_come_from_the_yaml(tmp_path):
    (tmp_path / "cosyvoice2.yaml").write_text(RELEASED)
    assert read_settings(tmp_path) == CosyVoice2Settings()


def test_the_generation_comes_from_the_yaml(tmp_path):
    text = RELEASED.replace("CausalConditionalDecoder", "ConditionalDecoder").replace(
        "channels: [256]", "causal: true\n            channels: [256]"
    )
    (tmp_path / "cosyvoice.yaml").write_text(text.replace(", static_chunk_size: !ref <chunk_size>", ""))
    found = read_settings(tmp_path)
    assert (found.release, found.trained_block) == ("2024", 50)


class Dangerous:
    def __reduce__(self):
        return os.system, ("exit 7",)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "cosyvoice2.yaml").unlink(), "no CosyVoice2 checkpoint there"),
        (lambda folder: (folder / "cosyvoice2.yaml").write_text("flow: [1]"), "not the description"),
        (lambda folder: (folder / "cosyvoice2.yaml").write_text(RELEASED.replace("<chunk_size>", "<none>")), "not the description"),
        (lambda folder: (folder / "flow.pt").unlink(), "neither flow.pt"),
        (lambda folder: (folder / "flow.pt").write_bytes(b"x" * 100), "cannot be read"),
        (lambda folder: (folder / "flow.pt").write_bytes(pickle.dumps(Dangerous())), "cannot be read"),
        (lambda folder: torch.save({"a": torch.zeros(1)}, folder / "hift.pt"), "does not fit"),
        (lambda folder: torch.save([1], folder / "hift.pt"), "something other"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, change, told):
    folder = write_folder(tmp_path)
    change(folder)
    with pytest.raises(VocalnetError, match=told) as caught:
        settings = read_settings(folder)
        load_released(Flow(settings.flow, settings.codes), Hift(settings.hift), folder)
    assert caught.value.hint
    if "neither" in told or "there" in told:
        assert isinstance(caught.value, MissingWeights)
