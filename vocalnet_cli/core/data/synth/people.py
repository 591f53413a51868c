"""Rows of the nano corpus that people said: digits of the Free Spoken Digit Dataset."""

from __future__ import annotations

import random
import re
from pathlib import Path

from vocalnet_cli.core.data.synth.plan import Job, SynthSettings
from vocalnet_cli.core.data.synth.questions import digit
from vocalnet_cli.core.data.synth.split import HeldOut
from vocalnet_cli.core.data.synth.voices import Manner
from vocalnet_cli.core.errors import VocalnetError

_DIGIT_FILE = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


def plan_human(settings: SynthSettings, held_out: HeldOut, folder: Path) -> list[Job]:
    """Spoken digits of real people from `DIGIT_SPEAKER_TAKE.wav` files (the layout of the Free Spoken Digit Dataset)."""
    takes: dict[str, list[tuple[Path, int]]] = {}
    for path in sorted(folder.glob("*.wav")):
        found = _DIGIT_FILE.fullmatch(path.name)
        if found:
            takes.setdefault(found[2], []).append((path, int(found[1])))
    missing = set(held_out.speakers) - set(takes)
    if not takes or missing:
        raise VocalnetError(
            f"{folder} has no recordings named DIGIT_{'/'.join(sorted(missing))}_TAKE.wav",
            "give the recordings folder of the Free Spoken Digit Dataset: --digits DIR",
        )
    chance = random.Random(f"{settings.seed} people")
    jobs = []
    for speaker, recordings in sorted(takes.items()):
        for path, number in chance.sample(recordings, min(settings.digits_a_speaker, len(recordings))):
            split = "test-human" if speaker in held_out.speakers else "dev" if chance.random() < settings.dev_share else "train"
            jobs.append(Job(f"human-{path.stem}", split, digit(number), Manner(f"human:{speaker}"), path))
    return jobs
