"""Drawing speech tokens."""

from __future__ import annotations

import torch

from vocalnet_cli.core.model.talker.contract import SpeechSampling
from vocalnet_cli.core.model.talker.sampling import draw, draw_in_turn

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


def test_tokens_of_a_group_are_penalised_by_those_before_them():
    several = SCORES.expand(2, 4, -1)
    nothing = torch.zeros(2, 0, dtype=torch.long)
    assert draw_in_turn(several, SpeechSampling(), nothing).tolist() == [[0, 0, 0, 0]] * 2
    penalised = SpeechSampling(repetition_penalty=4.0, repetition_window=2)
    first, second, third, fourth = draw_in_turn(several, penalised, nothing)[0].tolist()
    assert (first, third) == (0, 3 - second) and {second, third} == {1, 2}, "two of 0.2 each, while 0 is at 0.125"
    assert fourth == 0, "the window has left it behind"
    recent = torch.tensor([[0], [1]])
    assert draw_in_turn(several, penalised, recent)[:, 0].tolist() == [second, 0]


def test_tokens_of_a_group_are_drawn_apart():
    hot = SpeechSampling(temperature=1.0, generator=torch.Generator().manual_seed(0))
    tokens = draw_in_turn(SCORES.expand(1000, 3, -1), hot, torch.zeros(1000, 0, dtype=torch.long))
    assert tokens.shape == (1000, 3)
    for place in tokens.unbind(1):
        assert near((torch.bincount(place, minlength=5) / 1000).tolist(), [0.5, 0.2, 0.2, 0.1, 0.0])
    assert near([float((tokens[:, 0] == tokens[:, 1]).float().mean())], [0.34])
