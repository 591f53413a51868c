"""What of this machine works: every part a command may need, and what to do about each that does not.

Free of torch and transformers at import, since a broken one is what this must be able to report.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from vocalnet_cli.core.config.places import nano_folder

State = Literal["ok", "missing", "broken"]

OPTIONAL = {
    "sounddevice": ("stream", "live microphone and loudspeaker"),
    "silero_vad": ("stream", "hearing when someone speaks"),
    "fastapi": ("serve", "serving"),
    "whisper_normalizer": ("eval", "the rule judge's normaliser"),
    "pocketsphinx": ("eval", "the offline recogniser of `vocalnet eval`"),
    "matplotlib": ("eval", "charts of `vocalnet latency -o`"),
    "datasets": ("data", "corpora of the hub"),
    "ray": ("ray", "data work on many machines"),
    "bitsandbytes": ("gpu", "--quantize"),
}
"""Optional packages: the extra that brings each, and what it is for."""
BREAKERS = ("torchaudio", "torchvision")
"""Packages whose wheels for another torch make every transformers model fail to import."""
LEAST_DISK_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    detail: str
    todo: str = ""
    """What to do about it; empty when it is well."""
    needed: bool = False
    """Nothing works without it."""

    def as_json(self) -> dict[str, Any]:
        """The row `doctor --json` prints."""
        return asdict(self)


def examine() -> list[Finding]:
    """All findings, the needed parts first."""
    breakers = [finding for name in BREAKERS if (finding := _breaker(name)) is not None]
    fixed = "; first uninstall what is broken above" if breakers else ""
    return [
        _python(),
        *breakers,
        _package("torch", "pip install 'torch>=2.11,<2.14'"),
        _package("transformers", f"pip install 'transformers>=5.17,<6'{fixed}", "transformers.models.llama.modeling_llama"),
        _package("soundfile", "pip install soundfile"),
        _embedded(),
        *_devices(),
        _sound(),
        *(_optional(name, extra, use) for name, (extra, use) in OPTIONAL.items() if name != "sounddevice"),
        _program("flite", "voices of `vocalnet prep synth`"),
        _hub(),
        _disk(),
    ]


def _python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", detail, needed=True)


def _try(load: Callable[[], Any]) -> str | None:
    """Why something cannot be loaded, in a line; none if it can."""
    try:
        load()
    except Exception as error:  # broken wheels raise OSError, RuntimeError and whatever else they like
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return None


def _version(package: str) -> str:
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return "no version"


def _package(name: str, todo: str, module: str | None = None) -> Finding:
    if find_spec(name) is None:
        return Finding(name, "missing", "not installed", todo, needed=True)
    why = _try(lambda: importlib.import_module(module or name))
    return Finding(name, "broken", why, todo, needed=True) if why else Finding(name, "ok", _version(name), needed=True)


def _breaker(name: str) -> Finding | None:
    """A finding only if the package is installed and broken: then it must go."""
    if find_spec(name) is None:
        return None
    why = _try(lambda: importlib.import_module(name))
    return Finding(name, "broken", why, f"pip uninstall {name}: while it is broken, transformers fails too.", needed=True) if why else None


def _optional(name: str, extra: str, use: str) -> Finding:
    todo = f"For {use}: pip install 'vocalnet-cli[{extra}]'."
    if find_spec(name) is None:
        return Finding(name, "missing", "not installed", todo)
    return Finding(name, "ok", _version(name))


def _embedded() -> Finding:
    folder = nano_folder()
    absent = [name for name in ("config.json", "thinker.safetensors", "talker.safetensors") if not (folder / name).is_file()]
    if absent:
        return Finding("nano", "broken", f"{absent[0]} is not in the package", "Install the package again.", needed=True)
    return Finding("nano", "ok", "the embedded model", needed=True)


def _devices() -> list[Finding]:
    if _try(lambda: importlib.import_module("torch")):
        return []  # told above
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    findings = [Finding("cpu", "ok", f"{os.cpu_count()} cores")]
    if cuda:
        findings.append(Finding("cuda", "ok", ", ".join(cuda)))
    elif shutil.which("nvidia-smi"):
        findings.append(Finding("cuda", "broken", "there is a driver, but torch sees no GPU", "Install the CUDA build of torch."))
    if torch.backends.mps.is_available():
        findings.append(Finding("mps", "ok", "Apple GPU"))
    return findings


def _sound() -> Finding:
    install = "pip install 'vocalnet-cli[stream]', and on Debian apt-get install libportaudio2."
    if find_spec("sounddevice") is None:
        return Finding("audio devices", "missing", "sounddevice is not installed", f"For talking live: {install}")
    devices: list[dict[str, int]] = []
    if why := _try(lambda: devices.extend(importlib.import_module("sounddevice").query_devices())):
        return Finding("audio devices", "broken", why, install)
    inputs = sum(device["max_input_channels"] > 0 for device in devices)
    outputs = sum(device["max_output_channels"] > 0 for device in devices)
    if not (inputs and outputs):
        detail = f"{inputs} microphones, {outputs} loudspeakers"
        return Finding("audio devices", "missing", detail, "For talking live, connect them or start a sound server.")
    return Finding("audio devices", "ok", f"{inputs} microphones, {outputs} loudspeakers")


def _program(name: str, use: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, "ok", path) if path else Finding(name, "missing", "not on PATH", f"For {use}: apt-get install {name}.")


def _hub() -> Finding:
    if why := _try(lambda: importlib.import_module("huggingface_hub")):
        return Finding("hub", "broken", why, "pip install huggingface-hub", needed=True)
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "missing", "HF_HUB_OFFLINE forbids the network", "Unset HF_HUB_OFFLINE to fetch models.")
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=3):
            pass
    except HTTPError:
        pass  # it answered
    except (OSError, ValueError) as error:
        todo = "To fetch models, check the network, or name a mirror in HF_ENDPOINT."
        return Finding("hub", "missing", f"{constants.ENDPOINT} cannot be reached ({error})", todo)
    return Finding("hub", "ok", constants.ENDPOINT)


def _disk() -> Finding:
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache"))
    while not cache.exists() and cache != cache.parent:
        cache = cache.parent
    free = shutil.disk_usage(cache).free / 1e9
    if free < LEAST_DISK_GB:
        return Finding("disk", "missing", f"{free:.1f} GB free at {cache}", "Free some space, or set HF_HOME to a larger disk.")
    return Finding("disk", "ok", f"{free:.1f} GB free at {cache}")
