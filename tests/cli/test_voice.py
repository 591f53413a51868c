"""A model that speaks through a CosyVoice2 folder, in a voice: through the commands, and through the engine they use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny import TEXTS, tone
from tests.vocoder_folder import CODES, FAST, answer_sound, copied
from vocalnet_cli.core.audio.wav import write_wav
from vocalnet_cli.core.config.places import default_voice
from vocalnet_cli.core.config.vocoder_schema import VocoderElsewhere
from vocalnet_cli.core.evaluation import listening
from vocalnet_cli.core.evaluation.wer import Hearing
from vocalnet_cli.core.generation.events import AudioChunk, SpeechTokens
from vocalnet_cli.core.generation.load import load_answerer, plan_answers
from vocalnet_cli.core.generation.streaming import answer
from vocalnet_cli.core.generation.together import answer_together
from vocalnet_cli.core.generation.vocoder import find_voice
from vocalnet_cli.core.model import hub
from vocalnet_cli.core.model.released import OURS
from vocalnet_cli.core.model.voice import voice as voice_module
from vocalnet_cli.core.model.weights import load_model, save_model
from vocalnet_cli.core.units import QUESTION_HZ

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("sounds")


def test_answers_take_the_voice_that_is_made_once(vocalnet, model, vocoder, monkeypatch):
    command = ("infer", "q.wav", "--model", model, "--json", *FAST)
    nobody = vocalnet(*command, "--vocoder", copied(vocoder, "campplus.onnx"), "-o", "nobody")
    assert nobody.code == 0 and "note: no --voice" in nobody.err
    command = (*command, "--vocoder", vocoder)
    row = json.loads(nobody.out)
    assert row["tokens"]["speech"] == 40 and row["audio_s"] == 1.6 and "first_audio" in row["timings_ms"]
    for name in ("me", "you"):
        result = vocalnet(*command, "-o", name, "--voice", f"{name}.wav")
        assert result.code == 0 and "no --voice" not in result.err, result.err
        assert json.loads(result.out)["text"] == row["text"]
    told = [answer_sound("nobody"), answer_sound("me"), answer_sound("you")]
    assert {len(samples) for samples in told} == {38400} and all(np.abs(samples).max() > 0.05 for samples in told)
    assert all(np.abs(a - b).max() > 0.05 for a, b in zip(told, [*told[1:], told[0]], strict=True))

    def never(*_):
        raise AssertionError("the voice was made again")

    monkeypatch.setattr(voice_module, "load_s3_tokenizer", never)
    assert vocalnet(*command, "-o", "again", "--voice", "me.wav").code == 0
    np.testing.assert_array_equal(answer_sound("again"), told[1])
    assert len(list(Path("cache/voices").iterdir())) == 3, "these two, and the vocoder's own"


def test_where_nothing_names_a_voice_the_package_has_one(vocalnet, model, vocoder):
    command = ("infer", "q.wav", "--model", model, "--vocoder", vocoder, *FAST)
    for name, more in (("usual", ()), ("named", ("--voice", default_voice()))):
        result = vocalnet(*command, "-o", name, *more)
        assert result.code == 0 and "no --voice" not in result.err, result.err
    np.testing.assert_array_equal(answer_sound("usual"), answer_sound("named"))
    assert 3 < soundfile.info(default_voice()).duration < 5


def test_a_recording_in_the_vocoders_folder_is_its_voice(vocalnet, model, vocoder):
    own = copied(vocoder)
    shutil.copy("me.wav", own / "voice.wav")
    command = ("infer", "q.wav", "--model", model, *FAST)
    result = vocalnet(*command, "--vocoder", own, "-o", "own")
    assert result.code == 0 and "no --voice" not in result.err
    vocalnet(*command, "--vocoder", vocoder, "--voice", "me.wav", "-o", "named")
    np.testing.assert_array_equal(answer_sound("own"), answer_sound("named"))
    vocalnet(*command, "--vocoder", own, "--voice", "you.wav", "-o", "other")
    assert np.abs(answer_sound("other") - answer_sound("own")).max() > 0.05


def test_a_batch_says_what_each_would_say_alone(vocalnet, model, vocoder):
    command = ("infer", "q.wav", "r.wav", "--model", model, "--vocoder", vocoder, "--voice", "me.wav", "--json", *FAST)
    alone, both = vocalnet(*command, "-o", "alone"), vocalnet(*command, "-o", "both", "--batch-size", 2)
    texts = [[json.loads(line)["text"] for line in result.out.splitlines()] for result in (alone, both)]
    assert texts[0] == texts[1] and json.loads(both.out.splitlines()[0])["together"] == 2
    for name in ("q", "r"):
        np.testing.assert_allclose(answer_sound("both", name), answer_sound("alone", name), atol=2e-3)


def test_each_conversation_has_its_voice(model, vocoder):
    """Through the engine: streamed, the sound is that of the tokens at once; together, each answer keeps its own voice."""
    plan = plan_answers(model, ["vocoder.steps=1", "vocoder.first_tokens=4", "vocoder.lookahead_frames=0"], str(vocoder))
    loaded = load_answerer(plan, CPU, torch.float32)
    voices = [find_voice(plan, Path("me.wav"), CPU), None, find_voice(plan, Path("you.wav"), CPU)]
    questions = [tone(0.5), tone(0.5), tone(0.8)]
    estimator, rows = loaded.vocoder.flow.estimator, []
    wanted = []
    for question, voice in zip(questions, voices, strict=True):
        events = list(answer(loaded, question, plan.generation, voice=voice))
        first = next(i for i, event in enumerate(events) if isinstance(event, AudioChunk))
        before = sum(len(event.tokens) for event in events[:first] if isinstance(event, SpeechTokens))
        assert before in (7, 8), "sound comes as soon as the first four tokens and the three after them are there"
        tokens = [token for event in events if isinstance(event, SpeechTokens) for token in event.tokens]
        samples = np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])
        whole = loaded.vocoder.push(loaded.vocoder.begin(voice), torch.tensor(tokens), True)
        np.testing.assert_allclose(samples, whole, atol=1e-5)
        wanted.append((events[-1].text, tokens, whole))
    assert wanted[0][1] == wanted[1][1] and np.abs(wanted[0][2] - wanted[1][2]).max() > 0.05
    hook = estimator.register_forward_hook(lambda _module, args, _out: rows.append(len(args[0])))
    together = list(answer_together(loaded, questions, plan.generation, voices))
    hook.remove()
    assert max(rows) == 6, "three answers share the flow's calls, two rows each"
    for (done, tokens, parts), (text, alone, samples) in zip(together, wanted, strict=True):
        assert (done.text, tokens) == (text, alone)
        np.testing.assert_allclose(np.concatenate(parts), samples, atol=1e-3)


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_a_released_checkpoint_speaks(vocalnet, model, vocoder, streaming):
    """The same weights under the released names, without a word of ours in config.json."""
    assert vocalnet("models", "export", model, "-o", "released", "--dtype", "fp32").code == 0
    config = json.loads(Path("released/config.json").read_text())
    del config[OURS]
    Path("released/config.json").write_text(json.dumps(config))
    limits = ("--set", "generation.max_text_tokens=11", "--set", "generation.max_speech_tokens=40")
    command = ("infer", "q.wav", "--model", "released", "--json", *limits, "--set", f"generation.streaming={streaming}")
    mute = vocalnet(*command, "-o", "mute")
    assert mute.code == 0 and "--vocoder names one" in mute.err and json.loads(mute.out)["audio"] is None
    result = vocalnet(*command, "-o", "loud", "--vocoder", vocoder, "--voice", "me.wav", *FAST)
    row = json.loads(result.out)
    assert row["text"] == json.loads(mute.out)["text"] and row["audio_s"] == pytest.approx(0.04 * row["tokens"]["speech"])
    assert row["tokens"]["speech"] == len(np.load("mute/q.npy"))


def test_knobs_reach_the_vocoder(vocalnet, model, vocoder):
    knobs = ["steps=2", "guidance=0", "block_tokens=20", "context=full", "lookahead_frames=4", "flow_dtype=bf16"]
    plan = plan_answers(model, [f"vocoder.{knob}" for knob in knobs], str(vocoder))
    settings = load_answerer(plan, CPU, torch.float32).vocoder.settings
    assert (settings.steps, settings.guidance, settings.block_tokens, settings.context, settings.lookahead_frames) == (2, 0, 20, "full", 4)
    assert settings.codes == CODES and settings.release == "2025"
    for dtype, kinds in ((torch.float32, {torch.bfloat16}), (torch.bfloat16, {torch.bfloat16})):
        flow = load_answerer(plan, CPU, dtype).vocoder.flow
        assert {weight.dtype for weight in flow.parameters()} == kinds
    half = load_answerer(plan_answers(model, [], str(vocoder)), CPU, torch.bfloat16).vocoder
    assert next(half.flow.parameters()).dtype == torch.bfloat16, "the flow computes as the rest of the model does"
    assert next(half.hift.parameters()).dtype == torch.float32


def test_knobs_of_a_vocoder_of_its_own(vocalnet, tiny_folder):
    plan = plan_answers(tiny_folder, ["vocoder.iterations=7", "vocoder.block_tokens=9"])
    settings = load_answerer(plan, CPU, torch.float32).vocoder.settings
    assert (settings.iterations, settings.block_tokens, settings.first_tokens) == (7, 9, 4)


WRONG = {
    "a model with one voice": (["--model", "TINY", "--voice", "me.wav"], 2, ["--voice me.wav", "griffin-lim", "one voice"]),
    "a model with voices of its own": (["--model", "nano", "--voice", "me.wav"], 2, ["--voice me.wav", "knows no voice", "slt, "]),
    "a model without a vocoder": (["--voice", "me.wav"], 2, ["has no vocoder", "--vocoder FunAudioLLM/CosyVoice2-0.5B"]),
    "other speech tokens": (["--model", "nano", "--vocoder", "VOCODER"], 1, ["speaks 6561 speech tokens", "4096"]),
    "no such folder": (["--vocoder", "nowhere"], 1, ["vocoder nowhere: no such folder"]),
    "a file": (["--vocoder", "q.wav"], 1, ["vocoder q.wav: no such folder"]),
    "another folder": (["--vocoder", "."], 1, ["vocoder .: holds no cosyvoice2.yaml"]),
    "not fetched": (["--vocoder", hub.COSYVOICE2], 1, [hub.COSYVOICE2, "HF_HUB_OFFLINE"]),
    "a vocoder as the model": (["--model", "VOCODER"], 1, ["is a vocoder", "--vocoder"]),
    "no such recording": (["--vocoder", "VOCODER", "--voice", "no.wav"], 1, ["no.wav: no such file"]),
    "a short recording": (["--vocoder", "VOCODER", "--voice", "short.wav"], 1, ["short.wav: 0.30 s of speech"]),
    "no recording": (["--vocoder", "VOCODER", "--voice", "q.txt"], 1, ["q.txt: not a sound file"]),
    "a misspelt knob": (["--vocoder", "VOCODER", "--set", "vocoder.stepz=3"], 1, ["--set vocoder.stepz=3", "Nearest: vocoder.steps"]),
    "too many steps": (["--vocoder", "VOCODER", "--set", "vocoder.steps=11"], 1, ["vocoder.steps is 11", "less than or equal to 10"]),
    "knobs that conflict": (["--vocoder", "VOCODER", "--set", "vocoder.first_tokens=60"], 1, ["--set vocoder.first_tokens=60  ", "larger"]),
    "sizes": (["--vocoder", "VOCODER", "--set", "vocoder.flow.hidden=8"], 2, ["fixed by the vocoder's weights", "vocoder.steps"]),
    "a knob of another kind": (["--model", "TINY", "--set", "vocoder.steps=3"], 1, ["only cosyvoice2"]),
    "a knob of no vocoder": (["--set", "vocoder.steps=3"], 2, ["has no vocoder"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_in_two_lines(vocalnet, model, vocoder, tiny_folder, case, monkeypatch):
    from vocalnet_cli.core.model import weights

    def refuse(*_, **__):
        raise AssertionError("the model was loaded for nothing")

    monkeypatch.setattr(weights, "load_model", refuse)
    write_wav(Path("short.wav"), tone(0.3), QUESTION_HZ)
    Path("q.txt").write_text("no sound\n")
    arguments, code, words = WRONG[case]
    arguments = [str({"VOCODER": vocoder, "TINY": tiny_folder}.get(word, word)) for word in arguments]
    result = vocalnet("infer", "q.wav", *([] if "--model" in arguments else ["--model", model]), *arguments)
    assert result.code == code and result.out == "" and not Path("answers").exists(), result.err
    assert len(result.err.strip().splitlines()) == 2 and "defect" not in result.err and all(word in result.err for word in words)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("flow.pt", None, "neither flow.pt nor"),
        ("hift.pt", b"x" * 99, "hift.pt: cannot be read"),
        ("cosyvoice2.yaml", b"flow: [1]", "not the description of a CosyVoice2 model"),
        ("campplus.onnx", None, "holds no campplus.onnx"),
        ("speech_tokenizer_v2.onnx", b"x" * 99, "not an ONNX file"),
    ],
)
def test_a_damaged_vocoder_is_told_in_two_lines(vocalnet, model, vocoder, file, content, words):
    folder = copied(vocoder, without=file)
    if content is not None:
        (folder / file).write_bytes(content)
    result = vocalnet("infer", "q.wav", "--model", model, "--vocoder", folder, "--voice", "me.wav", *FAST)
    assert result.code == 1 and words in result.err and len(result.err.strip().splitlines()) == 2 and result.out == ""


def test_a_model_may_name_its_vocoder(vocalnet, model, vocoder):
    """What a recipe's `init.vocoder` leaves in config.json; an export keeps it, an option overrides it."""
    loaded = load_model(model)
    named = VocoderElsewhere(place=str(vocoder), settings={"steps": 1, "first_tokens": 4})
    save_model(loaded, Path("named"), {"encoder", "adaptor", "thinker", "talker"}, vocoder=named)
    assert vocalnet("models", "export", "named", "-o", "exported", "--dtype", "fp32").code == 0
    short = ("--set", "generation.max_text_tokens=11", "--set", "generation.max_speech_tokens=40", "--set", "generation.tokens_per_step=2")
    for name in ("named", "exported"):
        assert plan_answers(Path(name)).vocoder.steps == 1
        assert plan_answers(Path(name), ["vocoder.steps=2"]).vocoder.steps == 2
        assert vocalnet("infer", "q.wav", "--model", name, "--voice", "me.wav", "-o", f"by-{name}", *short).code == 0
    vocalnet("infer", "q.wav", "--model", model, "--vocoder", vocoder, "--voice", "me.wav", "-o", "by-option", *short, *FAST)
    np.testing.assert_array_equal(answer_sound("by-named"), answer_sound("by-option"))
    np.testing.assert_array_equal(answer_sound("by-exported"), answer_sound("by-option"))
    config = json.loads(Path("named/config.json").read_text())
    Path("named/config.json").write_text(json.dumps(config | {"vocoder": {"place": "elsewhere/entirely"}}))
    gone = vocalnet("infer", "q.wav", "--model", "named")
    assert gone.code == 1 and "elsewhere/entirely" in gone.err and len(gone.err.strip().splitlines()) == 2
    assert vocalnet("infer", "q.wav", "--model", "named", "--vocoder", vocoder, *short, *FAST).code == 0


def test_a_recipe_may_name_the_vocoder(vocalnet, model, vocoder):
    rows = [
        {"id": str(i), "source": "s", "split": split, "question": {"text": text}, "answer": {"text": text}, "speech_tokens": [7, 6000, 12]}
        for i, (split, text) in enumerate(zip(["train", "train", "dev"], TEXTS, strict=False))
    ]
    Path("manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = json.loads((model / "config.json").read_text())["model"]
    init = dict.fromkeys(["tokenizer", "encoder", "adaptor", "thinker"], str(model)) | {"vocoder": str(vocoder)}
    recipe = {
        "about": "test",
        "stage": "speak",
        "model": sizes,
        "init": init,
        "data": {"manifest": "manifest.jsonl", "questions": "written"},
        "train": {"steps": 1, "batch_size": 2},
        "generation": {"tokens_per_step": 2, "max_text_tokens": 9, "max_speech_tokens": 30},
    }
    Path("mine.yaml").write_text(json.dumps(recipe))
    trained = vocalnet("train", "--recipe", "mine.yaml", "-o", "run", "--device", "cpu", "--json")
    assert trained.code == 0, trained.err
    assert not Path("run/model/vocoder.safetensors").exists()
    result = vocalnet("infer", "q.wav", "--model", "run/model", "--json", *FAST)
    assert result.code == 0 and json.loads(result.out)["audio_s"] == 1.2, result.err
    for change, words in (
        ("init.vocoder=nowhere", "starts its vocoder from nowhere"),
        (f"init.vocoder={model}", "model.vocoder is not set"),
        ("model.talker.codes=99", "speaks 6561 speech tokens"),
        ("model.vocoder={kind: cosyvoice2}", "of other sizes"),
    ):
        refused = vocalnet("train", "--recipe", "mine.yaml", "-o", "other", "--device", "cpu", "--set", change)
        assert refused.code == 1 and words in refused.err and len(refused.err.strip().splitlines()) == 2, refused.err


def test_a_vocoder_of_the_hub_is_found_in_its_cache(vocoder, tmp_path, monkeypatch, model):
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    snapshot = cache / f"models--{hub.COSYVOICE2.replace('/', '--')}" / "snapshots" / "abc"
    shutil.copytree(vocoder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    assert hub.cached(hub.COSYVOICE2) == snapshot
    assert plan_answers(model, [], hub.COSYVOICE2).vocoder_folder == snapshot


class Deaf:
    """A recogniser that is there at once."""

    hearing = Hearing("deaf", {}, [])

    def __init__(self, words) -> None:
        pass

    def hear(self, samples, rate) -> str:
        return ""


def test_scores_depend_on_vocoder_and_voice(vocalnet, model, vocoder, monkeypatch):
    pytest.importorskip("pocketsphinx")
    monkeypatch.setattr(listening, "Recogniser", Deaf)
    row = {"id": "a", "source": "s", "split": "test", "question": {"text": "six", "audio": "q.wav"}, "answer": {"text": "You said six."}}
    Path("manifest.jsonl").write_text(json.dumps(row | {"meta": {"kind": "digit", "aliases": ["six"]}}) + "\n")
    command = ("eval", "--model", model, "--benchmark", "manifest.jsonl", "--json")
    mute = vocalnet(*command)
    assert mute.code == 1 and "cannot speak" in mute.err and "--vocoder" in mute.err
    reports = []
    for more in (("--voice", "me.wav"), ("--voice", "you.wav", "--set", "vocoder.guidance=0")):
        result = vocalnet(*command, "--vocoder", vocoder, *FAST, *more)
        assert result.code == 0, result.err
        reports.append(json.loads(result.out))
    first, second = reports
    assert first["vocoder"]["sha256"] == second["vocoder"]["sha256"] and first["voice_sha256"] != second["voice_sha256"]
    assert (first["vocoder"]["guidance"], second["vocoder"]["guidance"]) == (0.7, 0.0)
    assert len(list(Path("cache/eval").glob("*/answers.jsonl"))) == 2, "one each; of the model that cannot speak none"
