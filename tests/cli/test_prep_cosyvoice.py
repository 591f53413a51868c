"""`vocalnet prep synth` with CosyVoice 2: a server, and a checkout, with the interfaces of the published ones."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import soundfile

from vocalnet_cli.core.data.manifest import read_manifest
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest

fastapi = pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

Text = Annotated[str, fastapi.Form()]
Upload = Annotated[fastapi.UploadFile, fastapi.File()]

SOUND = Path(__file__).parents[1] / "assets" / "corpora" / "sound" / "llama_questions_42.wav"
WORDS = "What is the capital of China?"
ANSWERS = ("One.", "Two words.", "FAIL", "Three words here.")

CHECKOUT = """
import numpy, torch
class CosyVoice2:
    def __init__(self, model_dir):
        assert model_dir.endswith("CosyVoice2-0.5B")
        self.sample_rate = 22050
    def inference_zero_shot(self, tts_text, prompt_text, {prompt}, zero_shot_spk_id='', stream=False, speed=1.0, text_frontend=True):
        assert prompt_text == "What is the capital of China?" and {check}
        if tts_text == "FAIL":
            raise RuntimeError("no such sound")
        for word in tts_text.split():
            yield {{"tts_speech": 0.1 * torch.randn(1, int(22050 / speed))}}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "voice.wav").write_bytes(SOUND.read_bytes())
    (tmp_path / "voice.txt").write_text(WORDS + "\n")
    (tmp_path / "in").mkdir()
    rows = [
        Record(id=str(number), source="t", split="train", question=Utterance(text="Count."), answer=Utterance(text=text))
        for number, text in enumerate(ANSWERS)
    ]
    write_manifest(tmp_path / "in" / "manifest.jsonl", rows)
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Forms as in CosyVoice's `runtime/python/fastapi/server.py`; a second of a tone a word. Yields its URL and what it was asked."""
    asked: list[dict[str, Any]] = []
    app = fastapi.FastAPI()

    def spoken(text: str) -> Iterator[bytes]:
        if text == "FAIL":
            raise RuntimeError("no such sound")
        for _ in text.split():
            yield (8000 * np.sin(np.arange(24_000) / 10)).astype("<i2").tobytes()

    @app.post("/inference_sft")
    async def sft(tts_text: Text, spk_id: Text) -> Any:
        asked.append({"text": tts_text, "speaker": spk_id})
        return fastapi.responses.StreamingResponse(spoken(tts_text))

    @app.post("/inference_zero_shot")
    async def zero_shot(tts_text: Text, prompt_text: Text, prompt_wav: Upload) -> Any:
        asked.append({"text": tts_text, "words": prompt_text, "sound": prompt_wav.file.read()})
        return fastapi.responses.StreamingResponse(spoken(tts_text))

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who asks too early waits
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        running.should_exit = True
        thread.join()


def seconds(folder: Path) -> dict[str, float]:
    return {row.id: soundfile.info(folder / str(row.answer.audio)).duration for row in read_manifest(folder / "manifest.jsonl")}


def test_a_server_is_asked_as_its_own_client_asks(vocalnet: Callable, source: Path, server: tuple[str, list[dict[str, Any]]]) -> None:
    url, asked = server
    voices = ("--voice", f"cosyvoice2:{source / 'voice.wav'}", "--voice", "cosyvoice2:Ann", "--cosyvoice2", url)
    result = vocalnet("prep", "synth", source / "in", "-o", source / "out", "--say", "answer", *voices, "--seed", 3, "--json")
    assert result.code == 0 and json.loads(result.out)["rejected"] == {"voice failed": 1}, result.err
    assert seconds(source / "out") == pytest.approx({"0": 1, "1": 2, "3": 3}, abs=0.02)
    by_recording = [one for one in asked if "words" in one]
    assert all((one["words"], one["sound"]) == (WORDS, SOUND.read_bytes()) for one in by_recording)
    assert {one["speaker"] for one in asked if one not in by_recording} == {"Ann"} and by_recording
    assert [one["text"] for one in asked] == list(ANSWERS)
    for row in read_manifest(source / "out" / "manifest.jsonl"):
        assert row.answer.voice in ("cosyvoice2:voice.wav", "cosyvoice2:Ann")
        assert row.meta["synth"]["answer"]["version"] == "FastAPI 0.1.0" and row.meta["synth"]["seed"] == 3


@pytest.mark.parametrize("by_path", [True, False])
def test_a_checkout_is_called_by_its_own_signature(
    vocalnet: Callable, source: Path, monkeypatch: pytest.MonkeyPatch, by_path: bool
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cosyvoice"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    place = source / "CosyVoice"
    (place / "cosyvoice" / "cli").mkdir(parents=True)
    (place / "pretrained_models" / "CosyVoice2-0.5B").mkdir(parents=True)
    for package in ("cosyvoice", "cosyvoice/cli"):
        (place / package / "__init__.py").touch()
    prompt, check = (
        ("prompt_wav", "prompt_wav.endswith('voice.wav')") if by_path else ("prompt_speech_16k", "prompt_speech_16k.shape[0] == 1")
    )
    (place / "cosyvoice" / "cli" / "cosyvoice.py").write_text(CHECKOUT.format(prompt=prompt, check=check))
    args = ("--say", "answer", "--voice", f"cosyvoice2:{source / 'voice.wav'}", "--cosyvoice2", place, "--rate", 1.5)
    for name in ("a", "b"):
        assert vocalnet("prep", "synth", source / "in", "-o", source / name, *args).code == 0
    assert seconds(source / "a") == pytest.approx({"0": 1.5, "1": 3, "3": 4.5}, abs=0.02)
    assert (source / "a" / "manifest.jsonl").read_bytes() == (source / "b" / "manifest.jsonl").read_bytes()
    for row in read_manifest(source / "a" / "manifest.jsonl"):
        assert (source / "a" / str(row.answer.audio)).read_bytes() == (source / "b" / str(row.answer.audio)).read_bytes()


def test_what_is_missing_is_two_lines(vocalnet: Callable, source: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    (source / "mute.wav").write_bytes(SOUND.read_bytes())
    for args, told in (
        (("--voice", "cosyvoice2:Ann"), "where it is was not told"),
        (("--voice", "cosyvoice2:Ann", "--cosyvoice2", nobody), "does not answer"),
        (("--voice", "cosyvoice2:Ann", "--cosyvoice2", source), "no checkout of CosyVoice"),
        (("--voice", f"cosyvoice2:{source / 'mute.wav'}", "--cosyvoice2", nobody), "its words are not told"),
        (("--voice", "cosyvoice2:Ann", "--cosyvoice2", nobody, "--pitch", 1.2), "no such setting"),
        (("--voice", "cosyvoice2:Ann", "--cosyvoice2", nobody, "--rate", 1.2), "takes no speed"),
    ):
        result = vocalnet("prep", "synth", source / "in", "-o", source / "out", *args)
        assert result.code in (1, 2) and told in result.err and len(result.err.splitlines()) == 2, result.err
