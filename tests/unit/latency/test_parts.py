"""Parts with random weights: the talker's baseline says the same without caches, and the roofline counts what a step reads."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from vocalnet_cli.core.config.mistakes import KINDS
from vocalnet_cli.core.config.schema import Recipe
from vocalnet_cli.core.latency import talker as bench
from vocalnet_cli.core.latency.parts import PARTS
from vocalnet_cli.core.latency.random_parts import random_part, sized
from vocalnet_cli.core.latency.roofline import count_work
from vocalnet_cli.core.model.thinker import build_thinker

CPU, FP32 = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    small = ("hidden=32", "ffn=64", "heads=2", "projector_layers=1", "decoder_layers=2", "codes=40")
    talker = [f"model.talker.{one}" for one in small]
    thinker = [f"model.thinker.{one}" for one in ("hidden=32", "ffn=64", "heads=2", "kv_heads=1", "layers=2", "vocab=50")]
    encoder = [f"model.encoder.{one}" for one in ("hidden=16", "ffn=32", "heads=2", "layers=1")]
    rest = ["model.adaptor.hidden=24", "model.vocoder.codes=40", "latency.answer_s=2", "latency.question_s=1"]
    return sized("nano", [*talker, *thinker, *encoder, *rest])


@pytest.mark.parametrize(
    "name", ["ntp", "mtp1", "mtp3", "mtp-vocalnet7", "group-linear5", "group-trans4", "mtp-parallel-linear3", "mtp-deepseek3"]
)
def test_recomputing_says_what_the_caches_say(recipe, name):
    [made] = bench._build([bench.find_variant(name, recipe)], recipe, CPU, FP32, 0)
    for parameter in made._talker.parameters():
        if parameter.ndim == 2:
            parameter.mul_(20)  # so that tokens differ
    spoken = made.speak(made.count)
    step = made.variant.number
    assert len(spoken) == 50 and len(set(spoken)) > 5  # no end token, and not one token again and again
    for at in (0, step, 4 * step):
        assert made.again(spoken[:at]) == spoken[at : at + step]


def test_every_kind_of_the_schema_can_be_compared(recipe):
    for kind in KINDS["talker"]:
        assert bench.find_variant(kind, recipe).settings.kind == kind
    assert bench.find_variant("mtp7", recipe).settings.modules == 6 and bench.find_variant("mtp3", recipe).settings.modules == 5
    assert bench.find_variant("mtp", recipe).number == recipe.generation.tokens_per_step == 3
    assert [bench.find_variant(f"group-trans{number}", recipe).settings.group for number in ("", 3, 5)] == [3, 3, 5]


def test_masked_diffusion_takes_the_passes_of_its_name(recipe):
    passes = {}
    for name in ("mdm1", "mdm4"):
        variant = bench.find_variant(name, recipe)
        assert (variant.settings.text_chunk, variant.settings.speech_chunk) == (4, 16)  # its own, not the recipe's talker's
        [made] = bench._build([variant], recipe, CPU, FP32, 0)
        states = []
        begin = made._talker.begin
        made._talker.begin = lambda *args, begin=begin, states=states: states.append(begin(*args)) or states[-1]
        assert len(made.speak(made.count)) == made.count == 50
        passes[name] = states[0].passes
    assert passes == {"mdm1": 4, "mdm4": 16}  # 50 tokens are four blocks


def test_random_parts_run_and_repeat(recipe):
    settings = recipe.model.thinker
    one, two = (random_part(lambda: build_thinker(settings), CPU, FP32, 7) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.get_output_embeddings().weight is one.get_input_embeddings().weight  # tied, as in the sizes
    assert torch.isfinite(one(torch.zeros(1, 3, dtype=torch.long)).logits).all()
    assert not [name for name, buffer in one.named_buffers() if buffer.is_meta or not torch.isfinite(buffer).all()]


def test_a_thinker_step_reads_every_matrix_once(recipe):
    made = PARTS["thinker"](recipe, CPU, FP32, 0)
    with torch.no_grad():
        read, flops = count_work(made.part, made.step)
    # Tied: the output layer is the embedding, whose lookup of one row is no matrix product.
    matrices = sum(parameter.numel() for parameter in made.part.parameters() if parameter.ndim == 2)
    assert read == 4 * matrices
    sizes = recipe.model.thinker
    assert flops == 2 * matrices + 4 * sizes.layers * sizes.hidden * (64 + 1)  # the token attends to 64 rows before it and itself


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_counts_every_query_head_where_keys_are_shared(device):
    query, key = (torch.zeros(2, heads, tokens, 16, device=device) for heads, tokens in ((8, 3), (2, 5)))
    _, flops = count_work(torch.nn.Linear(1, 1), lambda: scaled_dot_product_attention(query, key, key, enable_gqa=True))
    assert flops == 2 * 2 * 8 * 3 * 5 * (16 + 16)


def test_a_talker_step_reads_decoder_modules_and_heads(recipe):
    made = PARTS["talker"](recipe, CPU, FP32, 0)
    used = [made.part.decoder, made.part.head]
    for module in made.part.extra[: recipe.generation.tokens_per_step - 1]:
        used += [module.stack, module.head]
    matrices = sum(parameter.numel() for part in used for parameter in part.parameters() if parameter.ndim == 2)
    biases = recipe.generation.tokens_per_step * (recipe.model.talker.codes + 4)
    with torch.no_grad():
        made.step()  # from the second step on as many tokens are read as are drawn
        read, _ = count_work(made.part, made.step)
    assert read == 4 * (matrices + biases)
