"""`prep synth` of a manifest: its questions, answers or both are said by a speech synthesizer."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalnet_cli.core.audio.wav import read_audio, resample
from vocalnet_cli.core.data.manifest import files_of, files_of_raw, record_of
from vocalnet_cli.core.data.prep import cosyvoice
from vocalnet_cli.core.data.prep.corpora import BadRow, inside
from vocalnet_cli.core.data.prep.cosyvoice import CosyVoice, Prompt, Speaker, prompt_of
from vocalnet_cli.core.data.prep.shards import Raw
from vocalnet_cli.core.data.prep.single import given_id
from vocalnet_cli.core.data.prep.sounds import LONGEST_S, placed, take_history, take_sound
from vocalnet_cli.core.data.prep.step import Reject, Row, write_bytes
from vocalnet_cli.core.data.record import Record, Utterance
from vocalnet_cli.core.data.synth.voices import (
    LIMITS,
    PACKAGES,
    PROGRAMS,
    Manner,
    VoiceFailed,
    has_voice,
    how_to_install,
    missing_engine,
    speak,
    trim,
)
from vocalnet_cli.core.errors import AudioError, UsageError
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

if TYPE_CHECKING:
    import numpy as np

SAY = ("question", "answer", "both")
COMMAND = "command"
_EDGE_S = 0.1
_TIMEOUT_S = 300
_VERSION = {"flite": ["--version"], "espeak": ["--version"], "festival": [], "rhvoice": []}
"""How a program tells its version; festival's wrapper and RHVoice do not."""


@dataclass
class Speech:
    """Text of a manifest into sound: questions at 16 kHz, answers at 24 kHz, FLAC."""

    voices: tuple[str, ...]
    """`ENGINE:NAME` each; a row's voice is drawn from its id and the seed."""
    say: str = "both"
    rate: float = 1.0
    pitch: float = 1.0
    seed: int = 0
    command: str | None = None
    """Arguments of a program of one's own, with {text_file} or {text}, {wav} and {voice} in them. No shell reads it."""
    versions: tuple[tuple[str, str], ...] = ()
    root: str | None = None
    """Folder that sound lies in; by default that of the input."""
    cosyvoice: CosyVoice | None = None
    prompts: tuple[Prompt, ...] = ()
    """CosyVoice 2's voices."""
    name: str = "synth"

    def __post_init__(self) -> None:
        self._speaker: Speaker | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_speaker": None}

    def settings(self) -> dict[str, Any]:
        manner = {"rate": self.rate, "pitch": self.pitch, "seed": self.seed, "command": self.command}
        prompts = {"prompts": [prompt.sha256() for prompt in self.prompts]} if self.prompts else {}
        return {"voices": self.voices, "say": self.say, **manner, "versions": self.versions, **prompts}

    def begin(self) -> None:
        if self.cosyvoice is not None:
            self._speaker = self.cosyvoice.open()

    def work(self, raws: Iterable[Raw], output: Path) -> Iterator[Row | Reject]:
        for raw in raws:
            try:
                yield self._row(raw, *record_of(raw, self._root(raw)), output)
            except BadRow as bad:
                yield Reject(raw, bad.reason, given_id(raw), bad.field, bad.detail, files_of_raw(raw, self._root(raw)))

    def _root(self, raw: Raw) -> Path:
        return Path(self.root) if self.root else raw.file.parent

    def _row(self, raw: Raw, record: Record, sound: bytes | None, output: Path) -> Row:
        made: dict[str, Any] = {}
        told: dict[str, Any] = {}
        total = 0.0
        for place, said, rate in (("question", record.question, QUESTION_HZ), ("answer", record.answer, ANSWER_HZ)):
            if self.say in (place, "both"):
                digits = hashlib.sha256(f"{self.seed} {record.id} {place}".encode()).hexdigest()
                voice = self.voices[int(digits, 16) % len(self.voices)]
                name, seconds = self._said(said.text, voice, rate, record.id, place, output)
                made[place] = Utterance(text=said.text, audio=name, voice=voice)
                told[place] = {"voice": voice, "version": dict(self.versions).get(voice.partition(":")[0], "")}
                total += seconds
            elif said.audio is not None:
                given = sound if sound and place == "question" else inside(self._root(raw), said.audio, f"{place}.audio")
                name, _ = take_sound(given, record.id, f"{place}s", output, f"{place}.audio")
                made[place] = said.model_copy(update={"audio": name})
        if "answer" in told:  # tokens of another recording
            made |= {"speech_tokens": None, "tokenizer": None, "collapsed": False}
        manner = {"rate": self.rate, "pitch": self.pitch, "seed": self.seed}
        made["history"] = take_history(record, self._root(raw), output)
        made["meta"] = {**record.meta, "synth": {**told, **manner}}
        return Row(raw, record.model_copy(update=made), audio_s=total, files=files_of(record, self._root(raw)))

    def _said(self, text: str, voice: str, rate: int, own: str, place: str, output: Path) -> tuple[str, float]:
        """Write what a voice says: its path in `output` and its seconds. Raises BadRow."""
        import soundfile

        if not re.search(r"\w", text):
            raise BadRow("nothing to say", f"{place}.text")
        try:
            samples = trim(self._spoken(text, voice, rate, own), rate, _EDGE_S)
        except (VoiceFailed, AudioError) as error:
            raise BadRow("voice failed", place, str(error).splitlines()[0][:200]) from error
        if len(samples) > LONGEST_S * rate:
            raise BadRow("sound too long", place, f"{len(samples) / rate:.0f} s")
        whole = io.BytesIO()
        soundfile.write(whole, samples, rate, format="FLAC", subtype="PCM_16")
        name = placed(own, f"{place}s", ".flac", f"{voice} {text}".encode())
        write_bytes(output / name, whole.getvalue(), output)
        return name, len(samples) / rate

    def _spoken(self, text: str, voice: str, rate: int, own: str) -> np.ndarray:
        """What a voice says: mono float32 at `rate`. Raises VoiceFailed, AudioError."""
        engine, _, name = voice.partition(":")
        if engine == COMMAND:
            return self._run(text, voice, rate)
        if engine != cosyvoice.ENGINE:
            return speak(text, Manner(voice, self.rate, self.pitch), rate, letters=False)
        assert self._speaker is not None
        prompt = next(prompt for prompt in self.prompts if prompt.name == name)
        seed = int(hashlib.sha256(f"{self.seed} {own} {text}".encode()).hexdigest()[:8], 16)
        samples, given = self._speaker(text, prompt, 1 / self.rate, seed)
        return resample(samples, given, rate)

    def _run(self, text: str, voice: str, rate: int) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="vocalnet-voice-") as folder:
            wav, text_file = Path(folder) / "said.wav", Path(folder) / "text.txt"
            text_file.write_text(text + "\n", encoding="utf-8")
            filled = {"{text}": text, "{text_file}": str(text_file), "{wav}": str(wav), "{voice}": voice.partition(":")[2]}
            arguments = [
                re.sub(r"\{(text|text_file|wav|voice)\}", lambda match: filled[match[0]], part) for part in shlex.split(self.command or "")
            ]
            try:
                done = subprocess.run(arguments, capture_output=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
            except (OSError, subprocess.TimeoutExpired, ValueError) as error:
                raise VoiceFailed(f"{arguments[0]} did not run: {type(error).__name__}") from error
            if done.returncode != 0:
                last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                raise VoiceFailed(f"{arguments[0]} ended with code {done.returncode}: {' '.join(last)}")
            return read_audio(wav, rate)


def speech_step(
    voices: list[str],
    say: str = "both",
    rate: float = 1.0,
    pitch: float = 1.0,
    seed: int = 0,
    command: str | None = None,
    cosy: CosyVoice | None = None,
    root: str | None = None,
) -> Speech:
    """The step, after a look at whether its voices can speak. Raises UsageError."""
    if say not in SAY:
        raise UsageError(f"--say {say}: no such choice", f"There are: {', '.join(SAY)}.")
    if command is not None:
        _check_command(command)
        named = tuple(f"{COMMAND}:{voice.partition(':')[2] or voice}" for voice in voices)
        return Speech(named, say, rate, pitch, seed, command, root=root)
    voices = [voice.replace("espeak-ng:", "espeak:", 1) if voice.startswith("espeak-ng:") else voice for voice in voices]
    engines = sorted({voice.partition(":")[0] for voice in voices})
    for engine in engines:
        if engine == cosyvoice.ENGINE:
            _check_cosyvoice(cosy, rate, pitch)
        elif engine not in PROGRAMS and engine not in PACKAGES:
            known = ", ".join((*PROGRAMS, *PACKAGES, cosyvoice.ENGINE))
            raise UsageError(f"--voice {engine}: no such engine", f"Write ENGINE:NAME with one of {known}, or use --command.")
        elif missing := missing_engine(engine):
            raise UsageError(f"{missing} is not installed", how_to_install(engine))
        for name, (lowest, highest) in LIMITS.get(engine, {}).items():
            if not lowest <= (asked := {"pitch": pitch, "rate": rate}[name]) <= highest:
                raise UsageError(f"--{name} {asked:g}: {engine} goes from {lowest:g} to {highest:g}", "Choose one between.")
    for voice in voices:
        if voice.partition(":")[0] == "rhvoice" and not has_voice(voice):  # it would speak in another
            raise UsageError(f"--voice {voice}: no such voice is installed", how_to_install("rhvoice"))
    prompts = {voice: prompt_of(voice.partition(":")[2]) for voice in voices if voice.startswith(f"{cosyvoice.ENGINE}:")}
    shown = tuple(f"{cosyvoice.ENGINE}:{prompts[voice].name}" if voice in prompts else voice for voice in voices)
    if len(set(shown)) < len(set(voices)):
        raise UsageError("--voice: two recordings of one file name", "Rows tell voices apart by it: give each a name of its own.")
    versions = tuple((engine, cosy.version() if cosy and engine == cosyvoice.ENGINE else _version(engine)) for engine in engines)
    used = cosy if cosyvoice.ENGINE in engines else None
    return Speech(shown, say, rate, pitch, seed, None, versions, root, used, tuple(prompts.values()))


def _check_command(command: str) -> None:
    program = (shlex.split(command) or [""])[0]
    if "{wav}" not in command or "{text" not in command:
        raise UsageError(
            "--command names no {wav}, or neither {text} nor {text_file}", "Example: --command 'flite -f {text_file} -o {wav}'"
        )
    if shutil.which(program) is None:
        raise UsageError(f"--command: there is no program {program!r}", "Give its path, or install it.")


def _check_cosyvoice(cosy: CosyVoice | None, rate: float, pitch: float) -> None:
    if cosy is None:
        raise UsageError(
            f"--voice {cosyvoice.ENGINE}: where it is was not told", "Add --cosyvoice2 URL (its server) or DIR (its checkout)."
        )
    if pitch != 1 or (rate != 1 and cosy.is_server):
        what = "--pitch" if pitch != 1 else "--rate"
        raise UsageError(f"{what}: CosyVoice {'has no such setting' if pitch != 1 else 'takes no speed from its server'}", "Leave it out.")


def _version(engine: str) -> str:
    if engine in PACKAGES:
        return metadata.version(PACKAGES[engine].replace("_", "-"))
    arguments = _VERSION[engine]
    if not arguments:
        return ""
    done = subprocess.run([PROGRAMS[engine], *arguments], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else ""
