"""`prep tokens`: spoken answers into speech tokens, 25 a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalnet_cli.core.data.manifest import files_of, files_of_raw, record_of, tokens_of
from vocalnet_cli.core.data.prep.corpora import BadRow, inside
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.single import PUBLISHED, checked_tokens, given_id
from vocalnet_cli.core.data.prep.sounds import LONGEST_S, check_sound, placed, take_history, take_sound
from vocalnet_cli.core.data.prep.step import Reject, Row, adopt
from vocalnet_cli.core.data.record import Record, TokenizerName
from vocalnet_cli.core.errors import AudioError, MissingWeights
from vocalnet_cli.core.model.folder import sha256_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

COSYVOICE2 = "FunAudioLLM/CosyVoice2-0.5B"
NANO = "nano"

_S3_BINS = 128
_HELD_S = 900.0
"""Seconds of sound held at once: bounds memory, however many rows a shard has."""


def find_tokenizer(name: str) -> tuple[str, Path]:
    """(kind, file) of a speech tokenizer: `nano`, a file, a folder of CosyVoice2-0.5B, or its hub id. Raises MissingWeights."""
    from vocalnet_cli.core.config.places import nano_folder

    if name == NANO:
        return "nano", nano_folder()
    from vocalnet_cli.core.model import hub
    from vocalnet_cli.core.model.voice.load import S3_TOKENIZER, model_file  # with it comes torch

    path = Path(name).expanduser()
    if path.is_file():
        return S3_TOKENIZER, path
    if (path / "config.json").is_file() and (path / "vocoder.safetensors").is_file():
        return "nano", path
    if path.is_dir():
        return S3_TOKENIZER, model_file(path, S3_TOKENIZER)
    here = hub.cached_file(name, f"{S3_TOKENIZER}.onnx") if hub.is_hub_id(name) else None
    if here is None:
        raise MissingWeights(
            f"{name}: no speech tokenizer there",
            f"Get it with `hf download {COSYVOICE2} {S3_TOKENIZER}.onnx`, name its folder, or use --tokenizer nano.",
        )
    return S3_TOKENIZER, here


@dataclass(frozen=True)
class _Job:
    """A row whose tokens are to be made."""

    raw: Raw
    record: Record
    sound: bytes | None
    """The spoken question, where it lies in the row itself."""
    path: Path = Path()
    """The spoken answer."""
    seconds: float = 0.0


@dataclass
class Tokens:
    """Rows with answer.audio get their speech tokens; the sound goes along."""

    tokenizer: str = COSYVOICE2
    device: str = "cpu"
    batch_size: int = 8
    """Windows of at most 30 s that are computed together, of like length."""
    collapse: bool = False
    """Merge runs of equal tokens, as the released code did in training: durations are then lost."""
    replace: bool = False
    """Make tokens anew where a row has some already, of whatever tokenizer; otherwise such a row is rejected unless it is the same."""
    root: str | None = None
    """Folder that sound and tokens lie in; by default that of the input."""
    name: str = "tokens"
    kind: str = field(init=False)
    file: Path = field(init=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        self.kind, self.file = find_tokenizer(self.tokenizer)
        self.sha256 = sha256_of([self.file if self.file.is_file() else self.file / "vocoder.safetensors"])
        self._tokenize: Callable[[Sequence[np.ndarray]], list[Tensor]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tokenize": None}

    def settings(self) -> dict[str, Any]:
        told = {"tokenizer": self.kind, "sha256": self.sha256, "collapse": self.collapse, "replace": self.replace}
        return {**told, "batch_size": self.batch_size, "device": self.device.partition(":")[0]}

    @property
    def rate(self) -> int:
        """Sample rate the tokenizer hears."""
        from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

        return ANSWER_HZ if self.kind == "nano" else QUESTION_HZ

    def begin(self) -> None:
        import torch

        if self.device == "cpu":
            torch.set_num_threads(1)  # sums in another order may round a token over: the outcome must not depend on the workers
        self._tokenize = self._nano() if self.kind == "nano" else self._s3()

    def _nano(self) -> Callable[[Sequence[np.ndarray]], list[Tensor]]:
        from vocalnet_cli.core.config.vocoder_schema import CosyVoice2Settings
        from vocalnet_cli.core.model.folder import read_config
        from vocalnet_cli.core.model.part_weights import load_own_vocoder

        settings = read_config(self.file)["model"].vocoder
        if isinstance(settings, CosyVoice2Settings) and settings.tokenizer is None:
            raise MissingWeights(f"{self.file}: its vocoder holds no speech tokenizer", f"Name the folder of {COSYVOICE2}, or `nano`.")
        book = load_own_vocoder(self.file, settings, self.device).tokenizer
        return lambda sounds: [book.encode(sound).cpu() for sound in sounds]

    def _s3(self) -> Callable[[Sequence[np.ndarray]], list[Tensor]]:
        from vocalnet_cli.core.audio.mel import encoder_mel
        from vocalnet_cli.core.model.voice.load import load_s3_tokenizer
        from vocalnet_cli.core.model.voice.s3_tokenizer import speech_tokens

        model = load_s3_tokenizer(self.file, self.device)
        return lambda sounds: speech_tokens(model, [encoder_mel(one, _S3_BINS) for one in sounds], model.device, self.batch_size)

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        ready: list[_Job | Row | Reject] = []
        held = 0.0
        for raw in raws:
            try:
                job = self._looked_at(raw, output)
                held += job.seconds if isinstance(job, _Job) else 0.0
                ready.append(job)
            except BadRow as bad:
                ready.append(Reject(raw, bad.reason, given_id(raw), bad.field, bad.detail, files_of_raw(raw, self._root(raw))))
            if held >= _HELD_S:
                yield from self._finish(ready, output)
                ready, held = [], 0.0
        yield from self._finish(ready, output)

    def _root(self, raw: Raw) -> Path:
        return Path(self.root) if self.root else raw.file.parent

    def _looked_at(self, raw: Raw, output: Path) -> _Job | Row:
        """What is to be done about a row; the row itself where its tokens are all there is. Raises BadRow."""
        record, sound = record_of(raw, self._root(raw))
        if record.answer.audio is None:
            if record.tokenizer == PUBLISHED and self.kind != "nano":
                return self._kept(_Job(raw, record, sound), output)
            raise BadRow("no spoken answer", "answer.audio")
        if record.speech_tokens is not None and not self.replace and (record.tokenizer is None or record.tokenizer.sha256 != self.sha256):
            raise BadRow("has tokens of another tokenizer", "tokenizer", record.tokenizer.name if record.tokenizer else "unknown")
        path = inside(self._root(raw), record.answer.audio, "answer.audio")
        return _Job(raw, record, sound, path, check_sound(path, "answer.audio"))

    def _kept(self, job: _Job, output: Path) -> Row:
        """A row whose tokens were published, drawn by CosyVoice 2's language model with no recording of them. Raises BadRow."""
        tokens = checked_tokens(tokens_of(job.record, self._root(job.raw)))
        made = {"speech_tokens": self._collapsed(tokens), "collapsed": self.collapse, **self._taken(job, output)}
        return Row(job.raw, job.record.model_copy(update=made), files=self._files(job))

    def _files(self, job: _Job) -> tuple[Path, ...]:
        return files_of(job.record, self._root(job.raw))

    def _collapsed(self, tokens: list[int]) -> list[int]:
        return [token for token, _ in groupby(tokens)] if self.collapse else tokens

    def _finish(self, ready: list[_Job | Row | Reject], output: Path) -> Iterator[Row | Reject]:
        """Rows in their order; computed in order of length."""
        sounds: dict[int, np.ndarray] = {}
        for place, job in enumerate(ready):
            if not isinstance(job, _Job):
                continue
            try:
                sounds[place] = self._heard(job.path)
            except AudioError as error:
                reason = "sound is silent" if "silence" in error.problem else "sound cannot be read"
                told = error.problem.replace(str(job.path), job.path.name)
                ready[place] = Reject(job.raw, reason, job.record.id, "answer.audio", told, self._files(job))
        order = sorted(sounds, key=lambda place: (len(sounds[place]), place))
        assert self._tokenize is not None
        tokens = dict(zip(order, self._tokenize([sounds[place] for place in order]), strict=True))
        for place, job in enumerate(ready):
            yield self._row(job, tokens[place].tolist(), len(sounds[place]), output) if isinstance(job, _Job) else job

    def _heard(self, path: Path) -> np.ndarray:
        """An answer as the tokenizer hears it. Raises AudioError."""
        from vocalnet_cli.core.audio.wav import read_spoken

        return read_spoken(path, self.rate, LONGEST_S)

    def _taken(self, job: _Job, output: Path) -> dict[str, Any]:
        """Question and earlier turns with their sound, if they have any, taken into `output`. Raises BadRow."""
        question, root = job.record.question, self._root(job.raw)
        if question.audio is not None:
            given = job.sound or inside(root, question.audio, "question.audio")
            name, _ = take_sound(given, job.record.id, "questions", output, "question.audio")
            question = question.model_copy(update={"audio": name})
        return {"question": question, "history": take_history(job.record, root, output)}

    def _row(self, job: _Job, tokens: list[int], samples: int, output: Path) -> Row | Reject:
        record = job.record
        if not tokens:
            return Reject(job.raw, "no speech tokens", record.id, "answer.audio", "the sound is too short", self._files(job))
        try:
            said = self._taken(job, output)
        except BadRow as bad:
            return Reject(job.raw, bad.reason, record.id, bad.field, bad.detail, self._files(job))
        audio = placed(record.id, "answers", job.path.suffix.lower(), job.path)
        adopt(output / audio, job.path, output)
        made = {
            **said,
            "answer": record.answer.model_copy(update={"audio": audio}),
            "speech_tokens": self._collapsed(tokens),
            "tokenizer": TokenizerName(name=self.kind, sha256=self.sha256),
            "collapsed": self.collapse,
        }
        return Row(job.raw, record.model_copy(update=made), audio_s=samples / self.rate, files=self._files(job))
