"""LoRA on the thinker: what its factors say is what the merged weights say."""

from __future__ import annotations

import warnings

import torch

from tests.tiny import tiny_model
from vocalnet_cli.core.config.schema import LoraSettings
from vocalnet_cli.core.model.thinker import add_lora, last_hidden, merge_lora


@torch.no_grad()
def test_a_merge_is_exact_and_nothing_is_warned_of():
    plain = tiny_model().thinker.eval()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    rows = torch.randn(2, 7, plain.config.hidden_size)
    untouched = last_hidden(plain, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = add_lora(plain, LoraSettings(rank=4, alpha=8)).eval()
    learns = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert learns and all("lora_" in name for name in learns)
    torch.testing.assert_close(last_hidden(adapted, rows), untouched)  # at first the factors say nothing
    for name, parameter in adapted.named_parameters():
        if name in learns:
            parameter.copy_(0.1 * torch.randn_like(parameter))
    wanted = last_hidden(adapted, rows)
    assert (wanted - untouched).abs().max() > 1e-2
    merged = merge_lora(adapted)
    torch.testing.assert_close(last_hidden(merged, rows), wanted, rtol=1e-5, atol=1e-5)
    assert merged.state_dict().keys() == before.keys()
