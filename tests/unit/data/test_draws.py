"""The order of examples: a pure function of seed and draw, balanced if asked, batches of similar length."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vocalnet_cli.core.config.schema import AugmentSettings
from vocalnet_cli.core.data.augment import augment
from vocalnet_cli.core.data.draws import Draws
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.training.stages.stage import kinds_of

EXAMPLES = [("long" if i % 5 == 0 else "short", 10 + (i * 37) % 90) for i in range(203)]


def draws(count: int = 900, seed: int = 3, start: int = 0, kinds: bool = False) -> Draws:
    return Draws(EXAMPLES, count, 8, seed, lambda e: e[1], [e[0] for e in EXAMPLES] if kinds else None, start)


def test_a_resumed_order_is_the_rest_of_the_straight_one() -> None:
    straight = [draws()[i] for i in range(900)]
    resumed = draws(start=352)
    assert [resumed[i] for i in range(len(resumed))] == straight[352:]


def test_every_pass_sees_every_example_once() -> None:
    order = draws(count=406).order
    assert sorted(order[:203]) == sorted(order[203:]) == list(range(203))
    assert list(order[:203]) != list(order[203:])


def test_batches_hold_similar_lengths() -> None:
    lengths = np.array([EXAMPLES[i][1] for i in draws(count=200).order]).reshape(-1, 8)
    assert np.ptp(lengths, axis=1).mean() < 0.25 * np.ptp([e[1] for e in EXAMPLES])


def test_balance_gives_small_kinds_their_share() -> None:
    kinds = Counter(EXAMPLES[i][0] for i in draws(kinds=True).order)
    assert kinds["long"] == pytest.approx(kinds["short"], rel=0.05)


def test_a_kind_may_be_drawn_more_often_than_the_others() -> None:
    said = {"question": {"text": "a"}, "answer": {"text": "b"}, "source": "synth", "split": "train"}
    rows = [Record.model_validate({"id": str(i), **said, "meta": {"kind": kind}}) for i, (kind, _) in enumerate(EXAMPLES)]
    kinds = kinds_of(rows, {"long": 3})
    order = Draws(EXAMPLES, 900, 8, 3, lambda e: e[1], kinds).order
    found = Counter(EXAMPLES[i][0] for i in order)
    assert found["long"] == pytest.approx(3 * found["short"], rel=0.05)
    assert kinds_of(rows, False) is None


def test_augmentation_is_a_function_of_its_generator() -> None:
    import torch

    mel = torch.randn(80, 120, generator=torch.Generator().manual_seed(0))
    settings = AugmentSettings(noise=0.1, shift_frames=10, warp=0.1)
    first, again, other = (augment(mel, settings, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    assert first.shape[0] == 80 and torch.isfinite(first).all()
    off = AugmentSettings(time_masks=0, frequency_masks=0)
    assert torch.equal(augment(mel, off, np.random.default_rng(0)), mel)


def test_a_bent_axis_keeps_the_order_and_goes_faster_in_places() -> None:
    import torch

    settings = AugmentSettings(time_masks=0, frequency_masks=0, bend=0.15)
    across = torch.arange(80.0)[:, None].expand(80, 200)
    along = torch.arange(200.0)[None].expand(80, 200)
    for ramp, axis in ((across, 0), (along, 1)):
        paces = []
        for seed in range(100):
            bent = augment(ramp, settings, np.random.default_rng(seed))
            assert bent.shape == ramp.shape
            line = bent.select(1 - axis, 40)
            assert torch.equal(bent, line.unsqueeze(1 - axis).expand_as(bent)) and (line.diff() >= 0).all()
            paces.append(line.diff()[10:50].log().std())  # the whole axis may be faster or slower, too: the last is repeated then
        assert 0.04 < float(torch.stack(paces).median()) < 0.15


def test_another_microphone_changes_all_moments_alike_and_a_room_only_what_follows() -> None:
    import torch

    plain = {"time_masks": 0, "frequency_masks": 0}
    mel = torch.full((80, 200), -1.0)
    mel[:, 50:60] = 1.0
    spectra = [augment(mel, AugmentSettings(**plain, equalise_db=6), np.random.default_rng(seed)) - mel for seed in range(200)]
    assert all(torch.allclose(one, one[:, :1].expand_as(one), atol=1e-6) for one in spectra)
    assert float(torch.stack(spectra).std()) == pytest.approx(6 / 40, rel=0.1)  # a unit of Whisper's log-mel is 40 dB
    longest, own_echo = 30, 0.05  # silence is a floor of power, which echoes too
    tails = []
    for seed in range(20):
        heard = augment(mel, AugmentSettings(**plain, reverb_s=longest / 100), np.random.default_rng(seed)) - mel
        assert (heard > -1e-4).all() and float(heard[:, :50].max()) < own_echo and float(heard[:, 60 + longest :].max()) < own_echo
        tails.append(float(heard[:, 60:63].mean()))
    assert sum(tail > 1 for tail in tails) > 12


def test_a_budget_fills_batches_and_resumes_where_it_was() -> None:
    sizes = [int(n) for n in np.random.default_rng(0).integers(5, 60, size=90)]

    def batches(start: int) -> list[list[tuple[int, int]]]:
        draws = Draws(sizes, 40, 8, 3, lambda size: size, start=start, budget=120)
        assert draws.batches is not None
        return [[draws[i] for i in batch] for batch in draws.batches]

    whole = batches(0)
    assert len(whole) == 40
    assert all(len(batch) * max(size for size, _ in batch) <= 120 for batch in whole)
    filled = [sum(size for size, _ in batch) / 120 for batch in whole]
    assert sum(filled) / len(filled) > 0.6
    assert batches(13) == whole[13:]  # draw numbers included
