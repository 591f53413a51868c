"""CosyVoice 2 as an engine of `prep synth`, by its own interfaces: the FastAPI server it comes with, or its checkout in this process.

Source: github.com/FunAudioLLM/CosyVoice, `runtime/python/fastapi/server.py` (16-bit samples without a header, at the model's rate) and
`cosyvoice/cli/cosyvoice.py`.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib
import inspect
import json
import random
import secrets
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocalnet_cli.core.audio.wav import read_audio
from vocalnet_cli.core.data.prep.sounds import LONGEST_S, check_sound
from vocalnet_cli.core.data.synth.voices import VoiceFailed
from vocalnet_cli.core.errors import UsageError, VocalnetError
from vocalnet_cli.core.units import ANSWER_HZ, QUESTION_HZ

ENGINE = "cosyvoice2"
MODEL = "pretrained_models/CosyVoice2-0.5B"
"""Where a checkout's README puts the weights."""

_TIMEOUT_S = 600
_MOST_BYTES = int(2 * ANSWER_HZ * LONGEST_S)


@dataclass(frozen=True)
class Prompt:
    """A voice: a speaker the model knows by name, or a recording it imitates, with the words of that."""

    name: str
    """As rows record it."""
    wav: Path | None = None
    words: str = ""

    def sha256(self) -> str:
        """Of the recording and its words."""
        return hashlib.sha256((self.wav.read_bytes() if self.wav else b"") + self.words.encode()).hexdigest()


def prompt_of(name: str) -> Prompt:
    """`SPEAKER`, or `FILE.wav` with its words in `FILE.txt` beside it. Raises UsageError, AudioError."""
    path = Path(name).expanduser()
    if not path.suffix:
        return Prompt(name)
    check_sound(path, "voice")
    try:
        words = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--voice {ENGINE}:{name}: its words are not told", f"Write what is said in it to {path.with_suffix('.txt')}."
        ) from error
    return Prompt(path.name, path.resolve(), words)


@dataclass(frozen=True)
class CosyVoice:
    """Where CosyVoice 2 is. It travels to worker processes; `open` gives what speaks."""

    place: str
    """URL of its server, or folder of its checkout."""
    model: str | None = None
    """Folder of the weights, for a checkout."""

    @property
    def is_server(self) -> bool:
        return self.place.startswith(("http://", "https://"))

    def open(self) -> Speaker:
        """Raises VocalnetError if it cannot be loaded."""
        return (
            _server(self.place.rstrip("/")) if self.is_server else _checkout(Path(self.place), Path(self.model or f"{self.place}/{MODEL}"))
        )

    def version(self) -> str:
        """What the server calls itself, or the checkout's commit. Raises VocalnetError if there is no CosyVoice there."""
        if self.is_server:
            return _server_name(self.place.rstrip("/"))
        folder = Path(self.place)
        if not (folder / "cosyvoice" / "cli" / "cosyvoice.py").is_file():
            raise UsageError(f"--cosyvoice2 {folder}: no checkout of CosyVoice", "Give its folder, or the URL of its server (http://...).")
        asked = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        return done.stdout.strip() if done.returncode == 0 else "unknown"


Speaker = Callable[[str, Prompt, float, int], tuple[np.ndarray, int]]
"""(text, voice, speed, seed) to mono samples [n] and their rate. Raises VoiceFailed, or VocalnetError when nothing more can be said."""


def _gone(url: str, error: Exception) -> VocalnetError:
    reason = getattr(error, "reason", error)
    return VocalnetError(f"{url}: CosyVoice's server does not answer ({reason})", "Start it (again); then the same command goes on.")


def _server_name(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=20) as answer:
            info = json.loads(answer.read(1 << 22))["info"]
        return f"{info['title']} {info['version']}"
    except urllib.error.HTTPError:
        return "unknown"
    except (OSError, http.client.HTTPException) as error:
        raise _gone(url, error) from error
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _server(url: str) -> Speaker:
    def say(text: str, prompt: Prompt, speed: float, seed: int) -> tuple[np.ndarray, int]:
        if prompt.wav is None:
            call, (body, kind) = "inference_sft", _form({"tts_text": text, "spk_id": prompt.name}, None)
        else:
            call, (body, kind) = "inference_zero_shot", _form({"tts_text": text, "prompt_text": prompt.words}, prompt.wav)
        request = urllib.request.Request(f"{url}/{call}", body, {"Content-Type": kind}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                data = answer.read(_MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise VoiceFailed(f"the server answered with code {error.code}") from error
        except urllib.error.URLError as error:
            raise _gone(url, error) from error
        except (OSError, http.client.HTTPException) as error:  # it gave up in the middle, as it does when the model fails on a text
            raise VoiceFailed(f"the server broke off: {type(error).__name__}") from error
        if not data or len(data) % 2 or len(data) > _MOST_BYTES:
            raise VoiceFailed(f"the server sent {len(data)} bytes, not up to {LONGEST_S:g} s of 16-bit samples")
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768, ANSWER_HZ

    return say


def _form(fields: dict[str, str], wav: Path | None) -> tuple[bytes, str]:
    """A form as bytes, and its content type; with a file it is multipart (RFC 7578)."""
    if wav is None:
        return urllib.parse.urlencode(fields).encode(), "application/x-www-form-urlencoded"
    mark = secrets.token_hex(16)
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="prompt_wav"; filename="prompt{wav.suffix}"\r\n'
    parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + wav.read_bytes() + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def _checkout(folder: Path, weights: Path) -> Speaker:
    if not weights.is_dir():
        raise VocalnetError(
            f"{weights}: no such folder of CosyVoice2's weights", "Download them, or name the folder: --cosyvoice2-model DIR"
        )
    for place in (folder, folder / "third_party" / "Matcha-TTS"):  # how its README says that it is imported
        if str(place.resolve()) not in sys.path:
            sys.path.append(str(place.resolve()))
    try:
        model = importlib.import_module("cosyvoice.cli.cosyvoice").CosyVoice2(str(weights))
    except Exception as error:  # foreign code: whatever keeps it from loading is told
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "Install its requirements here, or start its server where they are and give the URL: --cosyvoice2 http://..."
        raise VocalnetError(f"{folder}: CosyVoice cannot be loaded ({reason})", hint) from error
    # Since December 2025 a recording is given by its path, before that as samples.
    by_path = "prompt_wav" in inspect.signature(model.inference_zero_shot).parameters

    def say(text: str, prompt: Prompt, speed: float, seed: int) -> tuple[np.ndarray, int]:
        import torch

        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            if prompt.wav is None:
                parts = model.inference_sft(text, prompt.name, stream=False, speed=speed)
            else:
                heard: Any = str(prompt.wav) if by_path else torch.from_numpy(read_audio(prompt.wav, QUESTION_HZ))[None]
                parts = model.inference_zero_shot(text, prompt.words, heard, stream=False, speed=speed)
            samples = torch.cat([part["tts_speech"] for part in parts], dim=1)[0]
        except Exception as error:  # foreign code: one text that it cannot say must not end the others
            raise VoiceFailed(f"{type(error).__name__}: {error}") from error
        return samples.float().cpu().numpy(), int(model.sample_rate)

    return say
