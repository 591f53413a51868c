"""The CosyVoice2 folder a model speaks through, and the voices its answers can have: by name, or of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocalnet_cli.core.config.places import default_voice
from vocalnet_cli.core.config.vocoder_schema import RELEASED_CONFIGS, CosyVoice2Settings
from vocalnet_cli.core.errors import MissingWeights, UsageError, VocalnetError
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.folder import VOICES_FILE, home, is_vocoder, sha256_of

if TYPE_CHECKING:
    import torch

    from vocalnet_cli.core.generation.load import Plan
    from vocalnet_cli.core.model.vocoder import CosyVoice2Vocoder, Voice
    from vocalnet_cli.core.model.vocoder.voices import VoiceTable

_WEIGHTS = ("flow", "hift", "speech_tokenizer_v2", "campplus")

NAME_A_VOCODER = f"Name one with --vocoder FOLDER or --vocoder {hub.COSYVOICE2}, or answer with the embedded model: --model nano."

DEFAULT_VOICE = ("voice.wav", "voice.flac")
"""Recording in a vocoder's folder that is the voice of answers nobody names one for."""


def find_vocoder(vocoder: str | None, config: dict[str, Any]) -> Path | None:
    """CosyVoice2 folder by name (a folder or hub id); for none the one that the model of a `read_config` names, if it names one.

    A hub id is looked for in the local cache, then fetched. Raises MissingWeights for what cannot be had, VocalnetError for a folder
    that is something else.
    """
    name = vocoder
    if name is None:
        if "vocoder" not in config:
            return None
        name = str(config["vocoder"].place)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not is_vocoder(folder):
            raise VocalnetError(f"vocoder {name}: holds no {RELEASED_CONFIGS[0]}", f"Name a folder laid out as {hub.COSYVOICE2} is.")
        return folder
    if not hub.is_hub_id(name) or folder.exists():
        raise MissingWeights(
            f"vocoder {name}: no such folder", f"Name a folder laid out as {hub.COSYVOICE2} is, or that name to fetch it from the hub."
        )
    return hub.cached(name) or hub.pull(name)


def vocoder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all in a CosyVoice2 folder that decides how it sounds."""
    wanted = [folder / name for name in (*RELEASED_CONFIGS, *DEFAULT_VOICE, VOICES_FILE)]
    wanted += [folder / f"{name}{suffix}" for name in _WEIGHTS for suffix in (".safetensors", ".pt", ".onnx")]
    return sha256_of(path for path in [*wanted, default_voice()] if path.is_file())


def load_vocoder(folder: Path, settings: CosyVoice2Settings, device: torch.device, dtype: torch.dtype) -> CosyVoice2Vocoder:
    """The vocoder of a CosyVoice2 folder on a device; its flow computes in `dtype` unless the settings name a type.

    Its `own_voice` is that of the folder's `voice.wav` (or .flac), if there is one, else the first that it knows by name, else that of
    the package's recording, if the folder has the models that make voices.
    """
    from vocalnet_cli.core.model.device import DTYPES
    from vocalnet_cli.core.model.vocoder import CosyVoice2Vocoder
    from vocalnet_cli.core.model.vocoder.voices import VoiceTable
    from vocalnet_cli.core.model.voice import make_voice, makes_voices

    kinds = {kind: name for name, kind in DTYPES.items()}
    vocoder = CosyVoice2Vocoder.released(folder, settings.model_copy(update={"flow_dtype": settings.flow_dtype or kinds[dtype]}))
    vocoder.to(device)
    vocoder.know(VoiceTable.of(folder))
    recording = next((folder / name for name in DEFAULT_VOICE if (folder / name).is_file()), None)
    if recording is None and vocoder.own_voice is None and makes_voices(folder):
        recording = default_voice()
    if recording is not None:
        vocoder.own_voice = make_voice(recording, folder, device)
    return vocoder


def find_voice(plan: Plan, voice: Path | None, device: torch.device) -> Voice | None:
    """The voice a planned model knows by this name, or that of a recording; none for none.

    That of a recording is made on the device, and read from the cache the next time. Raises UsageError for a name it does not know and
    if its vocoder takes no voices, AudioError for a recording that cannot be one (see `make_voice`), MissingWeights where the vocoder's
    folder lacks the models that make voices.
    """
    if voice is None:
        return None
    if plan.vocoder is None:
        raise UsageError(f"--voice {voice}: {plan.folder} has no vocoder", NAME_A_VOCODER)
    if not isinstance(plan.vocoder, CosyVoice2Settings):
        raise UsageError(
            f"--voice {voice}: {plan.folder} speaks through {plan.vocoder.kind}, which has one voice only",
            f"Leave --voice out, or answer with a released model and --vocoder {hub.COSYVOICE2}.",
        )
    from vocalnet_cli.core.model.vocoder.voices import VoiceTable
    from vocalnet_cli.core.model.voice import make_voice

    folder = plan.vocoder_folder or home(plan.folder, "vocoder.safetensors")
    known = VoiceTable.of(folder)
    if known is not None and (plan.vocoder.tokenizer is not None or not _is_recording(voice, known)):
        return known[str(voice)].to(device)
    return make_voice(voice, folder, device)


def _is_recording(voice: Path, known: VoiceTable) -> bool:
    """Whether a voice is asked for by a file; a file that has the name of a known voice and no suffix is that voice."""
    return str(voice) not in known.names and (voice.is_file() or voice.name != str(voice) or bool(voice.suffix))
