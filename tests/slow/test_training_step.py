"""A talker's training step against the same modules used as the official code uses them: memory and speed.

Not run by default (minutes): `pytest -m slow -s tests/slow/test_training_step.py` prints the ratios. Hidden 512, 5 modules, 6565 ids,
batch 8, bfloat16 as `train.dtype: bf16` has it, forward and backward, both in turn in one process on one thread, in processor time.

The other way: transformers' layers as they are, every row padded to the longest, one mask a sample and head built in Python loops, the
scores of all heads held in single precision at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

from tests.slow.memory import peak_bytes
from vocalnet_cli.core.config.talker_schema import MtpVocalnetSettings
from vocalnet_cli.core.model.talker import backbone, build_talker, masks
from vocalnet_cli.core.model.talker.contract import Lengths
from vocalnet_cli.core.model.talker.losses import head_targets

HIDDEN, BATCH, ROUNDS = 512, 8, 3
TEXT_SHARE = 6
"""Speech tokens to a text token."""


def talker() -> nn.Module:
    torch.manual_seed(0)
    settings = MtpVocalnetSettings(hidden=HIDDEN, ffn=4 * HIDDEN, heads=8, dropout=0.0, modules=5)
    return build_talker(settings, "paper").train()


def batch(speech: list[int]) -> tuple[Tensor, Tensor, Lengths]:
    chance = torch.Generator().manual_seed(1)
    spoken = torch.tensor(speech)
    text = (spoken // TEXT_SHARE).clamp(min=1)
    hidden = torch.randn(len(speech), int(text.max()), HIDDEN, generator=chance)
    tokens = torch.randint(6561, (len(speech), int(spoken.max())), generator=chance)
    return hidden, tokens, Lengths(text, spoken, torch.arange(len(speech)) % 2 == 0)


def python_mask(text: int, speech: int, streaming: bool, columns: tuple[int, int], chunks: tuple[int, int]) -> Tensor:
    """One sample's mask [N, N], a chunk at a time."""
    mask = torch.zeros(sum(columns), sum(columns), dtype=torch.bool)
    first = columns[0]
    for row in range(text):
        mask[row, : row + 1 if streaming else text] = True
    for row in range(speech):
        view = masks.text_view(row, *chunks) if streaming else text
        mask[first + row, : min(view, text)] = True
        mask[first + row, first : first + row + 1] = True
    return mask | torch.eye(len(mask), dtype=torch.bool)


def plain_loss(model, hidden: Tensor, speech: Tensor, lengths: Lengths) -> Tensor:
    """The same loss the other way."""
    columns = (hidden.shape[1] + 1, speech.shape[1] + 1)
    numbers = masks.row_numbers(*columns)
    rotary = model.rotary(model.positions(numbers, columns[0]))
    tokens = torch.where(torch.arange(speech.shape[1]) < lengths.speech[:, None], speech, model.pad)
    tokens = torch.nn.functional.pad(tokens, (1, 0), value=model.sos)
    length = torch.arange(hidden.shape[1])
    states = model.projector(hidden, model.rotary(length), (length <= length[:, None])[None, None])
    states = torch.cat([model.embedding(torch.full_like(tokens[:, :1], model.bos)), states, model.embedding(tokens)], dim=1)
    spoken, scores, targets = model.spoken(speech, lengths), [], []
    for depth in range(1 + len(model.extra)):
        samples = zip(lengths.text.tolist(), lengths.speech.tolist(), lengths.streaming.tolist(), strict=True)
        seen = torch.stack([python_mask(text + 1, count + 1, live, columns, model.chunks) for text, count, live in samples])
        states = model.stack(depth)(states, rotary, seen[:, None])
        scores.append(model.predict(depth, states[:, columns[0] :], 6)[:, :, 0].float())
        targets.append(head_targets(spoken, depth, 1, model.pad))
    means = [
        nn.functional.cross_entropy(one.flatten(0, 1), wanted.flatten(), ignore_index=model.pad)
        for one, wanted in zip(scores, targets, strict=True)
    ]
    return sum(model.loss_decay**depth * mean for depth, mean in enumerate(means))


def ways(model, data) -> dict[str, Callable[[], Tensor]]:
    def ours() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(*data).total
        loss.backward()
        return loss.detach()

    def theirs() -> Tensor:
        # The layers as they are on other devices, which are transformers'.
        with torch.autocast("cpu", torch.bfloat16), pytest.MonkeyPatch.context() as patch:
            patch.setattr(backbone, "side_by_side", lambda states: False)
            patch.setattr(backbone.FrugalMLP, "forward", LlamaMLP.forward)
            loss = plain_loss(model, *data)
        loss.backward()
        return loss.detach()

    return {"ours": ours, "theirs": theirs}


def compared(speech: list[int], rounds: int = ROUNDS) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Seconds a step, bytes of activations and losses of both ways."""
    torch.set_num_threads(1)
    model = talker()
    both = ways(model, batch(speech))
    gradients = sum(p.numel() * p.element_size() for p in model.parameters())
    memory, loss, seconds = {}, {}, {name: [] for name in both}
    for _ in range(rounds):
        for name, way in both.items():
            model.zero_grad(set_to_none=True)
            start = time.process_time()
            loss[name] = float(way())
            seconds[name].append(time.process_time() - start)
    for name, way in both.items():  # last: it makes memory slow
        model.zero_grad(set_to_none=True)
        memory[name] = peak_bytes(way) - gradients
    return {name: statistics.median(all_) for name, all_ in seconds.items()}, memory, loss


LENGTHS = {"equal": ([250] * BATCH, 1.1), "mixed": ([50, 107, 164, 221, 279, 336, 393, 450], 1.5)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LENGTHS)
def test_memory_and_speed_of_a_training_step(kind):
    lengths, faster = LENGTHS[kind]
    seconds, memory, loss = compared(lengths)
    held, speed = memory["ours"] / memory["theirs"], seconds["theirs"] / seconds["ours"]
    print(
        f"\n{kind} ({min(lengths)}-{max(lengths)} speech tokens): activations {held:.2f}, {in_mb(memory)}; speed {speed:.2f}, {seconds} s"
    )
    assert loss["ours"] == pytest.approx(loss["theirs"], rel=1e-3)
    assert held <= 0.5
    assert speed >= faster


def in_mb(memory: dict[str, float]) -> dict[str, str]:
    return {name: f"{count / 1e6:.0f} MB" for name, count in memory.items()}
