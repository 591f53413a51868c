"""`vocalnet eval figure 4`: what a talker draws from, seen as it draws."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.tiny import CODES, save_tiny, tiny_model, tone
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.config.schema import GenerationSettings
from vocalnet_cli.core.data.record import Record, Utterance, write_manifest
from vocalnet_cli.core.evaluation.certainty import Watcher, watch_talker
from vocalnet_cli.core.generation.events import SpeechTokens
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.units import QUESTION_HZ


@pytest.fixture
def manifest(tmp_path):
    folder = tmp_path / "tones"
    folder.mkdir()
    rows = []
    for number in range(3):
        write_wav(folder / f"{number}.wav", tone(0.5 + 0.1 * number), QUESTION_HZ)
        question = Utterance(text="", audio=f"{number}.wav")
        rows.append(Record(id=f"q{number}", source="s", split="test", question=question, answer=Utterance(text="so")))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def test_known_distributions_have_known_entropy():
    watcher = Watcher()
    watcher(0, torch.zeros(1, 2, 8))
    watcher(0, torch.tensor([[[0.0, -torch.inf], [0.0, -torch.inf]]]))
    assert watcher.largest[0] == pytest.approx([1 / 8, 1]) and watcher.entropy[1] == pytest.approx([np.log(8), 0], abs=1e-9)


@pytest.mark.parametrize("talker", [{"kind": "ntp"}, {"kind": "mtp-vocalnet", "modules": 2}, {"kind": "group-linear", "group": 2}])
def test_a_greedy_token_is_the_likeliest_that_was_seen(talker):
    """Every token that leaves is the likeliest code, or the end, of one distribution, head after head."""
    step = {"ntp": 1, "mtp-vocalnet": 3, "group-linear": 2}[talker["kind"]]
    settings = GenerationSettings(max_text_tokens=7, max_speech_tokens=12, tokens_per_step=step, repetition_window=0)
    spoken = 0
    for seed in range(3):
        model = tiny_model(seed, talker)
        seen: list[torch.Tensor] = []
        events = list(answer(model, tone(), settings, watch=lambda head, scores, seen=seen: seen.extend(scores[0])))
        tokens = [token for event in events if isinstance(event, SpeechTokens) for token in event.tokens]
        choice = [*range(CODES), model.talker.eos]
        drawn = [choice[int(scores[choice].argmax())] for scores in seen]
        assert drawn[: len(tokens)] == tokens and len(drawn) % step == 0
        spoken += len(tokens)
        watched = watch_talker(model, [tone()], settings, tokens=1000)
        assert sorted(watched.largest) == list(range(step)) and watched.count() == len(drawn) // step
        assert watched.largest[0][0] == pytest.approx(float(seen[0].double().softmax(-1).max()))
    assert spoken


def test_figure_4_is_written_as_json_and_picture(vocalnet, tmp_path, manifest):
    pytest.importorskip("matplotlib")
    model = save_tiny(tmp_path / "model", talker={"kind": "ntp"}, max_text_tokens=7, max_speech_tokens=20, tokens_per_step=1)
    out = tmp_path / "figures"
    command = ("eval", "figure", "4", "--model", model, "--benchmark", manifest, "-o", out)
    result = vocalnet(*command, "--tokens", "25", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found == json.loads((out / "figure-4.json").read_text()) and found["talker"] == "ntp"
    one = found["heads"]["0"]
    assert one["n"] == 25 == sum(one["entropy"]["histogram"]["counts"]) and 0 < one["entropy"]["mean"] <= np.log(found["vocabulary"])
    assert (out / "figure-4.png").read_bytes().startswith(b"\x89PNG")
    again = json.loads(vocalnet(*command, "--tokens", "25", "--json").out)
    assert again["heads"] == found["heads"]
    assert "largest probability" in vocalnet(*command, "--tokens", "5", "--quiet").out


def test_a_masked_diffusion_talker_is_seen_pass_by_pass():
    model = tiny_model(talker={"kind": "mdm", "text_chunk": 4, "speech_chunk": 16})
    settings = GenerationSettings(max_text_tokens=7, max_speech_tokens=32, steps=4)
    watched = watch_talker(model, [tone()], settings, tokens=1000)
    assert sorted(watched.largest) == [0, 1, 2, 3] and watched.count() >= 4


def test_there_is_no_other_figure(vocalnet):
    result = vocalnet("eval", "figure", "3")
    assert result.code == 2 and "figure 3: no such figure" in result.err
