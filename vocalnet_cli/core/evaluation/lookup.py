"""Nearest-question lookup: the baseline that answers with the answer of the most similar training question.

What a model adds to remembering its training set is how far it is above this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record
from vocalnet_cli.core.data.synth.questions import spoken_words
from vocalnet_cli.core.data.synth.split import check_split
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.model.folder import LOOKUP_FILE, encoder_hash, home, sha256_of
from vocalnet_cli.core.model.tensor_file import write_tensors

if TYPE_CHECKING:
    from vocalnet_cli.core.model.speech_llm import SpeechLLM

FORMAT = "vocalnet-lookup-2"
TRAIN_SPLITS = ("train",)

_QUARTERS = 4
"""Parts of a question that are compared each with its own, so that the order of the words counts."""

_DIRECTIONS = 48
"""Principal directions kept: a bank of thousands of questions is half a megabyte, so a model can carry one."""


@torch.inference_mode()
def question_vector(model: SpeechLLM, samples: np.ndarray) -> Tensor:
    """What the encoder makes of a question (16 kHz samples): the mean state of each quarter of its time, joined: [4 * hidden], fp32."""
    states, lengths = model.encode(model.cut(samples))
    heard = torch.cat([row[:length] for row, length in zip(states, lengths, strict=True)]).float().cpu()
    return torch.nn.functional.adaptive_avg_pool1d(heard.T[None], _QUARTERS)[0].T.flatten()


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


@dataclass(frozen=True)
class Bank:
    """Training questions, as vectors of length 1 about their mean seen along their principal directions, and their answers."""

    vectors: Tensor
    """[N, K], up to one factor."""
    mean: Tensor
    """[4 * hidden]"""
    directions: Tensor
    """[K, 4 * hidden], orthonormal rows."""
    answers: list[str]

    def nearest(self, vector: Tensor) -> str:
        """Answer of the question whose vector has the largest cosine with `vector` [4 * hidden] of `question_vector`."""
        return self.answers[int((self.vectors @ (self.directions @ (vector - self.mean))).argmax())]


def _packed(vectors: Tensor) -> dict[str, Tensor]:
    """Question vectors [N, 4 * hidden] as the tensors of a bank: 8-bit places along the principal directions."""
    mean = vectors.mean(dim=0)
    vectors = _unit(vectors - mean)
    directions = torch.linalg.svd(vectors, full_matrices=False).Vh[:_DIRECTIONS].half().contiguous()
    places = vectors @ directions.float().T
    return {"vectors": (places * (127 / places.abs().max())).round().to(torch.int8), "mean": mean, "directions": directions}


def make_bank(
    manifest: Path,
    model_folder: Path,
    output: Path,
    device: torch.device,
    dtype: torch.dtype,
    *,
    splits: Sequence[str] = TRAIN_SPLITS,
    per_question: int = 1,
    limit: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write `output`/lookup.safetensors: what a model's encoder hears in `per_question` recordings of each training question.

    Questions are told apart by their words; `limit` keeps the first so many. `advance(done, total)` hears of each recording. Returns
    `{"rows_in", "rows_out", "questions", "megabytes", "file"}`. Raises UsageError for splits without spoken questions, VocalnetError
    for held-out rows, AudioError for bad sound, and what loading the model raises.
    """
    from vocalnet_cli.core.model.weights import load_model

    rows = _spoken(manifest, splits)
    chosen = _recordings(rows, per_question, limit)
    output.mkdir(parents=True, exist_ok=True)
    model = load_model(model_folder, device, dtype)
    vectors = []
    for done, record in enumerate(chosen, 1):
        vectors.append(question_vector(model, read_audio(manifest.parent / str(record.question.audio))))
        advance(done, len(chosen))
    said = [record.answer.text.encode() for record in chosen]
    tensors = {
        **_packed(torch.stack(vectors)),
        "answers": torch.frombuffer(bytearray(b"".join(said)), dtype=torch.uint8),
        "ends": torch.tensor([len(text) for text in said]).cumsum(0),
    }
    about = {
        "format": FORMAT,
        "encoder_sha256": encoder_hash(model_folder),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "splits": " ".join(splits),
        "per_question": str(per_question),
    }
    path = output / LOOKUP_FILE
    write_tensors(path, tensors, about)
    questions = len({_words(record) for record in chosen})
    size = round(path.stat().st_size / 1e6, 2)
    return {"rows_in": len(rows), "rows_out": len(chosen), "questions": questions, "megabytes": size, "file": str(path)}


def _spoken(manifest: Path, splits: Sequence[str]) -> list[Record]:
    """Rows of the splits that have a recorded question, checked to be no held-out ones."""
    records = read_manifest(manifest)
    rows = [record for record in records if record.split in splits and record.question.audio is not None]
    if not rows:
        there = ", ".join(sorted({record.split for record in records})) or "none"
        raise UsageError(f"{manifest}: no spoken question of split {', '.join(splits)}", f"Its splits: {there}.")
    check_split(rows, manifest.parent)
    return rows


def _words(record: Record) -> str:
    return " ".join(spoken_words(record.question.text))


def _recordings(rows: Sequence[Record], per_question: int, limit: int | None) -> list[Record]:
    """Recordings of each question. Which ones is drawn by their ids, so that no voice is preferred and every run takes the same."""
    questions: dict[str, list[Record]] = {}
    for record in rows:
        questions.setdefault(_words(record), []).append(record)
    groups = list(questions.values())[:limit]
    drawn = [sorted(group, key=lambda record: hashlib.sha256(record.id.encode()).digest()) for group in groups]
    return [record for group in drawn for record in group[:per_question]]


@dataclass(frozen=True)
class BankFile:
    """A bank on disk that was made with the encoder of the model it lies beside."""

    path: Path
    sha256: str

    def load(self) -> Bank:
        """Read it whole. Raises VocalnetError if it is damaged."""
        try:
            tensors = load_file(self.path)
            vectors, mean, directions = tensors["vectors"].float(), tensors["mean"], tensors["directions"].float()
            text, ends = tensors["answers"].numpy().tobytes(), tensors["ends"].tolist()
            answers = [text[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
        except (SafetensorError, OSError, KeyError, UnicodeDecodeError) as error:
            raise _unusable(self.path, f"cannot be read ({' '.join(str(error).split())})") from error
        if vectors.shape != (len(answers), len(directions)) or directions.shape[1:] != mean.shape:
            raise _unusable(self.path, f"{len(answers)} answers to vectors of shape {tuple(vectors.shape)}")
        return Bank(vectors, mean, directions, answers)


def find_bank(folder: Path) -> BankFile | None:
    """The bank in a model's folder, or that of the model it shares its encoder with; None if it has none. Reads no vector.

    Raises VocalnetError for a file that is no bank, or that was made with another encoder than the folder's.
    """
    path = home(folder, LOOKUP_FILE) / LOOKUP_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unusable(path, f"cannot be read ({error})") from error
    if about.get("format") != FORMAT:
        raise _unusable(path, f"format is not {FORMAT!r}")
    if about.get("encoder_sha256") != encoder_hash(folder):
        raise _unusable(path, "made with another encoder than the model's")
    return BankFile(path, sha256_of([path]))


def _unusable(path: Path, reason: str) -> VocalnetError:
    return VocalnetError(
        f"{path}: {reason}", f"Make it again (vocalnet prep lookup MANIFEST --model {path.parent}), or remove it: it is only a baseline."
    )
