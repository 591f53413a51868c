"""300 turns in one process: memory stays flat, and every turn is answered whole.

Not run by default (minutes): `pytest -m slow -s tests/slow/test_long_conversation.py` also prints the first-sound times.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.config.places import nano_folder
from vocalnet_cli.core.conversation.conversation import Conversation
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.generation.events import TurnDone
from vocalnet_cli.core.generation.load import generation_settings, load_speaker

TURNS, WARM = 300, 60
BENCHMARK = nano_folder() / "eval" / "nano-human"


def resident_mb() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("history", [0, 3])
def test_memory_stays_flat_and_every_turn_is_whole(history):
    torch.manual_seed(0)
    model = load_speaker(nano_folder(), torch.device("cpu"), torch.float32)
    settings = generation_settings(nano_folder()).model_copy(update={"history": history})
    records = read_manifest(BENCHMARK / "manifest.jsonl")
    questions = [read_audio(BENCHMARK / str(record.question.audio)) for record in records]
    talk = Conversation(model, settings)
    used, first = [], []
    for turn in range(TURNS):
        talk.prepare()
        *_, done = talk.ask(questions[turn % len(questions)])
        assert isinstance(done, TurnDone) and done.tokens["speech"] > 0
        assert history or not (done.truncated or done.cut), f"turn {turn + 1}: {done.text}"
        assert len(talk.turns) == min(history, turn + 1)
        used.append(resident_mb())
        first.append(done.timings_ms["first_audio"])
    warm = np.array(used[WARM:])
    print(f"\n{TURNS} turns, history {history}: {warm[0]:.0f} MB after {WARM}, {warm.min():.0f} to {warm.max():.0f} MB from there on")
    print(f"first sound p50 {np.quantile(first, 0.5):.0f} ms, p95 {np.quantile(first, 0.95):.0f} ms")
    assert np.abs(warm / warm[0] - 1).max() <= 0.05
