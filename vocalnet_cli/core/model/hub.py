"""Models of the hub: which are known, what of them is on this machine, and getting them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocalnet_cli.core.config.vocoder_schema import RELEASED_CONFIGS
from vocalnet_cli.core.errors import MissingWeights, VocalnetError
from vocalnet_cli.core.model.folder import is_vocoder

PATTERNS = [
    "*.json", "*.safetensors", "*.txt", "*.model", "*.jinja",
    *RELEASED_CONFIGS, "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v2.onnx",
]  # fmt: skip
"""Files that are fetched: settings, weights and tokenizer of a model; what a vocoder speaks with and makes voices with."""
NOT_WANTED = ["*.fp32-*", "original/*", "CosyVoice-BlankEN/*"]
"""Second copies of the weights that some repositories hold, and the text LLM beside the vocoder."""

WHISPER = "openai/whisper-large-v3"
"""Where a released checkpoint's encoder comes from if the checkpoint does not hold one."""

COSYVOICE2 = "FunAudioLLM/CosyVoice2-0.5B"
"""The vocoder of the released checkpoints."""


@dataclass(frozen=True)
class KnownModel:
    """A published model that `vocalnet` can use."""

    name: str
    what: str


KNOWN = (
    KnownModel("VocalNet/VocalNet-1B", "speech LLM on Llama-3.2-1B, English"),
    KnownModel("VocalNet/VocalNet-8B", "speech LLM on Llama-3.1-8B, English"),
    KnownModel("VocalNet/VocalNet-qwen25-7B", "speech LLM on Qwen2.5-7B, English and Chinese"),
    KnownModel(COSYVOICE2, "vocoder of these three, in any voice: --vocoder"),
    KnownModel(WHISPER, "speech encoder the recipes start from"),
    KnownModel("meta-llama/Llama-3.2-1B-Instruct", "text LLM the 1B recipes start from"),
)


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME of the hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and not name.startswith("runs/")


def cached(name: str) -> Path | None:
    """Folder of a hub model in the local cache, or none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / "config.json").is_file() or is_vocoder(folder) else None


def cached_file(name: str, file: str) -> Path | None:
    """One file of a hub model in the local cache, or none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file)
    return Path(found) if isinstance(found, str) else None


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def pull(name: str) -> Path:
    """Fetch a model into the hub cache, with the library's own progress bars; what is there already is not fetched again.

    HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are the library's. Raises VocalnetError when it cannot be had.
    """
    from huggingface_hub import snapshot_download

    if not is_hub_id(name):
        raise VocalnetError(f"{name!r} is not a hub id", "Write OWNER/NAME; `vocalnet models` lists the known ones.")
    if offline():
        raise MissingWeights(
            f"{name}: not fetched, because HF_HUB_OFFLINE forbids the network",
            "Unset HF_HUB_OFFLINE and run it again, or answer with --model nano.",
        )
    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS, ignore_patterns=NOT_WANTED))
    except Exception as error:
        raise _told(name, error) from error


def pull_data(name: str, patterns: list[str]) -> Path:
    """Fetch a data set's files of these patterns into the hub cache, or find them there. Raises VocalnetError when it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=patterns, local_files_only=offline()))
    except Exception as error:
        raise _told(name, error, "data set") from error


def _told(name: str, error: Exception, kind: str = "model") -> Exception:
    """What a failed download means to the user; errors that are none of the hub's come back as they are."""
    from huggingface_hub import constants, errors

    again = f"Run `vocalnet models pull {name}` again: it goes on where it stopped."
    if kind != "model":
        again = "Run it again: it goes on where it stopped; or download it yourself and name the folder."
    if isinstance(error, errors.GatedRepoError):
        hint = f"Accept its terms at {constants.ENDPOINT}/{name}, then set HF_TOKEN or run `hf auth login`."
        return MissingWeights(f"{name}: the hub wants an account that may read it", hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "Check the spelling (`vocalnet models` lists the known ones); a private model needs HF_TOKEN."
        return MissingWeights(f"{name}: no such {kind} at {constants.ENDPOINT}", hint)
    kinds: tuple[Any, ...] = (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
    # The client's own network errors have no common base in the library: known by the package they come from.
    network = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet")
    if isinstance(error, kinds) or network or isinstance(error, (TimeoutError, RuntimeError)):
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        return MissingWeights(f"{name}: {constants.ENDPOINT} cannot be reached or broke off ({reason})", again)
    return error
