"""Drawing speech tokens."""

from __future__ import annotations

import torch

from vocalnet_cli.core.model.talker.contract import SpeechSampling
from vocalnet_cli.core.model.talker.sampling import draw

SCORES = torch.tensor([[0.5, 0.2, 0.2, 0.1, 0.0]]).log()  # the last token is forbidden


def drawn(count: int = 3000, recent: torch.Tensor | None = None, **options) -> list[float]:
    """Shares of the tokens among `count` draws."""
    sampling = SpeechSampling(temperature=options.pop("temperature", 1.0), generator=torch.Generator().manual_seed(0), **options)
    many = SCORES.expand(count, -1)
    tokens = draw(many, sampling, None if recent is None else recent.expand(count, -1))
    return (torch.bincount(tokens, minlength=5) / count).tolist()


def near(shares: list[float], expected: list[float]) -> bool:
    return torch.allclose(torch.tensor(shares), torch.tensor(expected, dtype=torch.float), atol=0.03)


def test_greedy_takes_the_likeliest():
    assert draw(SCORES, SpeechSampling()).tolist() == [0]


def test_shares_follow_the_probabilities_and_the_temperature():
    assert near(drawn(), [0.5, 0.2, 0.2, 0.1, 0.0])
    squared = torch.tensor([0.25, 0.04, 0.04, 0.01, 0.0])
    assert near(drawn(temperature=0.5), (squared / squared.sum()).tolist())


def test_top_k_and_top_p_cut_the_tail():
    assert near(drawn(top_k=1), [1, 0, 0, 0, 0])
    assert near(drawn(top_k=3), [5 / 9, 2 / 9, 2 / 9, 0, 0])
    assert near(drawn(top_k=50), [0.5, 0.2, 0.2, 0.1, 0.0])
    assert near(drawn(top_p=0.4), [1, 0, 0, 0, 0])
    assert near(drawn(top_p=0.85), [5 / 9, 2 / 9, 2 / 9, 0, 0])


def test_penalty_counts_a_token_once_and_lowers_negative_scores_too():
    recent = torch.tensor([[0, 0, 0]])
    assert near(drawn(recent=recent, repetition_penalty=2.0), [1 / 3, 4 / 15, 4 / 15, 2 / 15, 0])
    assert draw(SCORES, SpeechSampling(repetition_penalty=4.0), recent).item() in (1, 2)
    assert draw(SCORES, SpeechSampling(repetition_penalty=4.0), recent[:, :0]).item() == 0
