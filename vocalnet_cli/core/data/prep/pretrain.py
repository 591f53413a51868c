"""`prep asr` and `prep tts`: transcribed recordings into instruction-form records for the pre-training of arXiv 2504.04060, table 3."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocalnet_cli.core.data.prep.corpora import BadRow, good_row, inside, text_of
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.single import given_id
from vocalnet_cli.core.data.prep.sounds import take_sound
from vocalnet_cli.core.data.prep.step import STATE, Reject, Row, write_bytes
from vocalnet_cli.core.data.record import Record, Utterance
from vocalnet_cli.core.errors import UsageError

TRANSCRIBE = "<speech> \n Please transcribe the speech to text."
REPEAT = "Please repeat after me: "
"""What the model is asked (arXiv 2504.04060, appendix)."""

_SOUND = (".flac", ".wav", ".ogg", ".mp3", ".opus")


@dataclass(frozen=True)
class Pretraining:
    """Rows of an index (`write_index`): recordings with their words."""

    name: str
    """`asr`: the recording is asked about; `tts`: it is the answer."""
    root: str
    source: str
    split: str = "train"

    def settings(self) -> dict[str, Any]:
        return {"source": self.source, "split": self.split}

    def begin(self) -> None:
        """Nothing to load."""

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        for raw in raws:
            try:
                yield self._row(raw, output)
            except BadRow as bad:
                yield Reject(raw, bad.reason, given_id(raw), bad.field, bad.detail)

    def _row(self, raw: Raw, output: Path) -> Row:
        row = good_row(raw)
        own, text = text_of(row, "id"), text_of(row, "text").strip()
        if not text:
            raise BadRow("empty text", "text")
        asr = self.name == "asr"
        kind, place = ("questions", "question.audio") if asr else ("answers", "answer.audio")
        recording = inside(Path(self.root), text_of(row, "audio"))
        sound, seconds = take_sound(recording, own, kind, output, place)
        if asr:
            question, answer = Utterance(text=TRANSCRIBE, audio=sound), Utterance(text=text)
        else:
            question, answer = Utterance(text=REPEAT + text), Utterance(text=text, audio=sound)
        record = Record(id=own, source=self.source, split=self.split, question=question, answer=answer, meta={"task": self.name})
        return Row(raw, record, audio_s=seconds, files=(recording,))


def write_index(folder: Path, output: Path) -> tuple[Path, str]:
    """List the recordings of a folder with their words in `output`'s state: that file, and the layout found.

    Layouts: LibriSpeech (`*.trans.txt`), LibriTTS (`*.normalized.txt`), LJ Speech (`metadata.csv`). Raises UsageError for another.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", "Name the folder of a corpus of transcribed recordings.")
    for layout, reader in (("librispeech", _librispeech), ("libritts", _libritts), ("ljspeech", _ljspeech)):
        lines = [json.dumps({"id": own, "audio": audio, "text": text}) for own, audio, text in reader(folder)]
        if lines:
            index = output / STATE / "index.jsonl"
            write_bytes(index, "".join(line + "\n" for line in lines).encode(), output)
            return index, layout
    raise UsageError(
        f"{folder}: holds no transcribed recordings in a known layout",
        "LibriSpeech's *.trans.txt, LibriTTS's *.normalized.txt and LJ Speech's metadata.csv are known.",
    )


Found = Iterator[tuple[str, str, str]]
"""(id, sound relative to the folder, words)."""


def _librispeech(folder: Path) -> Found:
    for listing in sorted(folder.rglob("*.trans.txt")):
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            own, _, text = line.partition(" ")
            if own:
                yield own, _sound(folder, listing.parent / own), text


def _libritts(folder: Path) -> Found:
    for words in sorted(folder.rglob("*.normalized.txt")):
        own = words.name.removesuffix(".normalized.txt")
        yield own, _sound(folder, words.parent / own), words.read_text(encoding="utf-8", errors="replace")


def _ljspeech(folder: Path) -> Found:
    for listing in sorted(folder.rglob("metadata.csv")):
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            own, *texts = line.split("|")
            if own and texts:
                yield own, _sound(folder, listing.parent / "wavs" / own), texts[-1]


def _sound(folder: Path, stem: Path) -> str:
    """The recording of that name, whatever its kind; where there is none, the name it should have."""
    found = next((path for suffix in _SOUND if (path := stem.with_name(stem.name + suffix)).is_file()), stem.with_name(stem.name + ".flac"))
    return str(found.relative_to(folder))
