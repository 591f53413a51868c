"""`vocalnet latency`: names of the JSON, times that add up, sides in turn, charts, interruptions, and mistakes in two lines."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.tiny import save_tiny, tiny_model
from vocalnet_cli.core.latency import bench, chart, roofline
from vocalnet_cli.core.latency.turns import SEGMENTS, Turn
from vocalnet_cli.core.model.vocoder.griffin_lim import GriffinLimVocoder
from vocalnet_cli.core.model.weights import save_model

FEW = ("--limit", "2", "--set", "latency.repeats=2", "--set", "latency.warmup=1")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(tiny_folder) -> str:
    return str(tiny_folder)


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


# --- whole answers -------------------------------------------------------------------------------------------------


def test_nano_has_the_stable_names(vocalnet):
    told = vocalnet("latency", "--model", "nano", "--limit", "1", "--set", "latency.repeats=2", "--set", "latency.warmup=1", "--json")
    assert told.code == 0, told.err
    result = json.loads(told.out)
    assert result.keys() >= {"device", "dtype", "n", "stages_ms", "first_audio_ms", "tokens_per_s", "rtf", "memory_mb"}
    assert result["model"] == "nano" and result["n"] == 2 and set(result["stages_ms"]) == set(SEGMENTS)
    for told_of in (*result["stages_ms"].values(), result["first_audio_ms"]):
        assert set(told_of) == {"p50", "p90", "p95", "max"} and told_of["p50"] <= told_of["p90"] <= told_of["p95"] <= told_of["max"]
    assert sum(one["p50"] for one in result["stages_ms"].values()) == pytest.approx(result["first_audio_ms"]["p50"], abs=0.1)  # two turns
    assert 0 < result["first_text_ms"]["p50"] < result["first_audio_ms"]["p50"] <= result["total_ms"]["p50"]
    assert result["cold"]["first_audio_ms"] > 0 and result["load_s"] > 0 and result["memory_mb"] > 40  # its weights alone
    rows = {row["row"]: row for row in result["paper"]}
    assert rows["VocalNet-1B"]["first_audio_ms"] == 319.73 and rows["VocalNet-8B"]["stages_ms"]["thinker"] == 126.71
    assert sum(rows["VocalNet-1B"]["stages_ms"].values()) == pytest.approx(319.73)


def test_a_slow_stage_is_told_as_that_stage(vocalnet, model, monkeypatch):
    push = GriffinLimVocoder.push

    def slow(*args):
        time.sleep(0.05)
        return push(*args)

    monkeypatch.setattr(GriffinLimVocoder, "push", slow)
    stages = json.loads(vocalnet("latency", "--model", model, *FEW, "--json").out)["stages_ms"]
    assert stages["vocoder"]["p50"] > 50 > stages["other"]["p50"]


def test_results_go_to_a_folder(vocalnet, model):
    told = vocalnet("latency", "--model", model, *FEW, "-o", "times", "--quiet")
    assert told.code == 0 and told.err == ""
    assert "first sound" in told.out and "VocalNet-1B" in told.out and "GLM-4-Voice 1104.64" in told.out
    result = json.loads(Path("times/latency.json").read_text())
    turns = [json.loads(line) for line in lines(Path("times/latency-turns.jsonl").read_text())]
    assert result["n"] == len(turns) == 4 and result["questions"] == 2
    for turn in turns:
        assert set(turn["stages_ms"]) == set(SEGMENTS)
        assert sum(turn["stages_ms"].values()) == pytest.approx(turn["first_ms"], abs=0.01)
        assert all(turn["stages_ms"][name] <= turn["spent_ms"][name] for name in turn["spent_ms"])
    assert sorted(path.name for path in Path("times").iterdir()) == ["latency-turns.jsonl", "latency.json", "latency.png"]
    assert is_png(Path("times/latency.png"))


def is_png(path: Path) -> bool:
    from matplotlib.image import imread

    height, width = imread(path).shape[:2]
    return width > 500 and height > 100


def test_a_model_without_a_vocoder_is_timed_to_its_first_tokens(vocalnet, tmp_path):
    mute = tiny_model()
    mute.settings = mute.settings.model_copy(update={"vocoder": None})
    mute.vocoder = None
    save_model(
        mute, tmp_path / "mute", {"encoder", "adaptor", "thinker", "talker"}, generation={"max_text_tokens": 7, "max_speech_tokens": 9}
    )
    told = vocalnet("latency", "--model", tmp_path / "mute", *FEW, "--json")
    result = json.loads(told.out)
    assert result["first_tokens_ms"]["p50"] > 0 and "first_audio_ms" not in result and "rtf" not in result
    assert result["stages_ms"]["vocoder"]["max"] == 0 < result["stages_ms"]["talker"]["p50"]
    assert "no vocoder" in vocalnet("latency", "--model", tmp_path / "mute", *FEW).out


def test_a_recipe_says_what_is_measured(vocalnet, model):
    Path("mine.yaml").write_text(
        f'about: mine\nlatency: {{model: "{model}", limit: 1, repeats: 1, warmup: 1}}\ngeneration: {{max_text_tokens: 3}}\n'
        'paper: {arxiv: "1", table: "1", row: mine, expect: {first_audio_ms: 5.5}}\n'
    )
    result = json.loads(vocalnet("latency", "--recipe", "mine.yaml", "--json").out)
    assert result["n"] == 1 and result["settings"]["max_text_tokens"] == 3
    assert [row["row"] for row in result["paper"]] == ["mine"] and result["stands_for"]["row"] == "mine"
    assert result["settings"]["tokens_per_step"] == 2  # the model's own, which the recipe leaves alone
    changed = vocalnet("latency", "--recipe", "mine.yaml", "--json", "--set", "latency.repeats=2", "--set", "generation.max_text_tokens=4")
    result = json.loads(changed.out)
    assert result["n"] == 2 and result["settings"]["max_text_tokens"] == 4


# --- comparisons ---------------------------------------------------------------------------------------------------


def fake(calls: list, times: dict[int, float]):
    """Turns of known length, by the most text tokens a side may write."""

    def take(model, name, samples, settings, seed, voice):
        first = times[settings.max_text_tokens]
        calls.append((settings.max_text_tokens, name))
        stages = {**dict.fromkeys(SEGMENTS, 0.0), "thinker": first}
        return Turn(name, first, stages, first, None, 0.1, 0.0, 2 * first, stages, 1.0, 3, 25)

    return take


def test_sides_take_turns_on_the_same_questions(vocalnet, model, monkeypatch):
    calls: list = []
    monkeypatch.setattr(bench, "take_turn", fake(calls, {3: 100.0, 4: 50.0}))
    sides = ("generation.max_text_tokens=3", f"{model},generation.max_text_tokens=4")
    told = vocalnet("latency", "compare", *sides, "--model", model, *FEW, "--json")
    assert told.code == 0, told.err
    result = json.loads(told.out)
    assert result["ratio"]["b/a"]["first_audio_ms"] == {"p50": 0.5, "p10": 0.5, "p90": 0.5} == result["ratio"]["b/a"]["thinker_ms"]
    assert result["pairs"] == 4 and (result["a"]["name"], result["b"]["name"]) == sides
    assert "stall_ms" not in result["ratio"]["b/a"]  # nothing to divide by
    counted = calls[2:]
    assert [one for one, _ in counted] == [3, 4, 4, 3] * 2
    assert all(left[1] == right[1] for left, right in zip(counted[::2], counted[1::2], strict=True))
    shown = vocalnet("latency", "compare", *sides, "--model", model, *FEW, "-o", "out")
    assert "0.500" in shown.out and is_png(Path("out/compare.png"))
    assert [json.loads(line)["side"] for line in lines(Path("out/compare-turns.jsonl").read_text())] == ["a"] * 4 + ["b"] * 4


def test_sides_that_share_weights_share_them_in_memory(vocalnet, model, tmp_path, monkeypatch):
    loaded = []
    load = bench.load_answerer
    monkeypatch.setattr(bench, "load_answerer", lambda plan, *args: loaded.append(plan.folder) or load(plan, *args))
    assert vocalnet("latency", "compare", "generation.streaming=true", "generation.streaming=false", "--model", model, *FEW).code == 0
    other = save_tiny(tmp_path / "other", 1, max_text_tokens=7, max_speech_tokens=20)
    assert vocalnet("latency", "compare", model, other, *FEW).code == 0
    assert vocalnet("latency", "compare", "dtype=fp32", "dtype=bf16", "--model", model, *FEW).code == 0
    assert [str(folder) for folder in loaded] == [model, model, str(other), model, model]


@pytest.mark.parametrize(
    ("command", "after", "measured"),
    [
        (["latency"], 1, None),  # the cold turn alone
        (["latency"], 3, 2),
        (["latency", "compare", "generation.max_text_tokens=7", "generation.max_text_tokens=3"], 3, None),
        (["latency", "compare", "generation.max_text_tokens=7", "generation.max_text_tokens=3"], 7, 2),  # five turns: two pairs
    ],
)
def test_an_interrupted_run_tells_what_it_has(vocalnet, model, monkeypatch, command, after, measured):
    calls: list = []
    take = fake(calls, {7: 100.0, 3: 50.0})

    def until(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        return take(*args)

    monkeypatch.setattr(bench, "take_turn", until)
    told = vocalnet(*command, "--model", model, *FEW, "--json")
    assert told.code == 130 and len(lines(told.err)) == 2
    if measured is None:
        assert told.out == "" and "nothing was measured" in told.err
    else:
        result = json.loads(told.out)
        assert result["interrupted"] and result.get("pairs", result.get("n")) == measured


# --- single parts --------------------------------------------------------------------------------------------------


def test_talkers_of_any_size_without_a_download(vocalnet):
    few = ("--set", "latency.answer_s=1.2", "--set", "latency.repeats=2", "--set", "model.talker.decoder_layers=2")
    told = vocalnet("latency", "talker", "--size", "nano", "--compare", "ntp,mtp3,mdm4", *few, "--json", "-o", "out")
    assert told.code == 0, told.err
    result = json.loads(told.out)
    assert set(result["tokens_per_s"]) == {"ntp", "mtp3", "mdm4"} and set(result["baseline"]["tokens_per_s"]) == {"ntp", "mtp3"}
    low, high = result["spread"]["mtp3/ntp"]
    assert low <= result["ratio"]["mtp3/ntp"] <= high and result["tokens_per_step"] == {"ntp": 1, "mtp3": 3, "mdm4": 4.0}
    assert result["answer_s"] == 1.2 and result["size"] == "nano" and result["n"] == 2 and is_png(Path("out/talker.png"))
    assert json.loads(Path("out/talker.json").read_text()) == result
    shown = vocalnet("latency", "talker", "--size", "nano", "--compare", "mtp1", *few, "--set", "latency.baseline=false")
    assert shown.code == 0 and "mtp1" in shown.out


def test_the_vocoder_against_computing_anew(vocalnet):
    few = (
        "--set",
        "model.vocoder.steps=1",
        "--set",
        "latency.answer_s=2",
        "--set",
        "latency.prompt_s=0.4",
        "--set",
        "latency.chunk_tokens=10",
        "--set",
        "latency.long_s=2",
    )
    result = json.loads(vocalnet("latency", "vocoder", "--size", "nano", *few, "--json").out)
    assert result.keys() >= {"offline_s", "streaming_s", "chunk_ms", "baseline", "ratio"}
    assert len(result["chunk_ms"]) == len(result["baseline"]["chunk_ms"]) == 5 and result["ratio"].keys() >= {"offline", "streaming"}
    assert result["settings"]["steps"] == 1 and result["dtype"] == "fp32" and result["growth"] > 0
    alone = vocalnet("latency", "vocoder", "--size", "nano", *few, "--dtype", "bf16", "--set", "latency.baseline=false", "-o", "out")
    assert alone.code == 0 and "bf16: flow" in alone.out and "context window of 75 tokens" in alone.out and is_png(Path("out/vocoder.png"))
    assert "baseline" not in json.loads(Path("out/vocoder.json").read_text())


def test_the_roofline_names_what_bounds_each_stage(vocalnet, monkeypatch):
    assert roofline.LEAST_READ >= 2 << 30 and roofline.BEST_OF == 5
    monkeypatch.setattr(roofline, "LEAST_READ", 1 << 24)
    monkeypatch.setattr(roofline, "_MATMUL", (64, 64, 64))
    monkeypatch.setattr(roofline, "processors", lambda: 1)  # on a busy machine a second thread only means waiting for it
    told = vocalnet("latency", "roofline", "--size", "nano", "--set", "latency.question_s=1", "--json", "-o", "out")
    assert told.code == 0, told.err
    result = json.loads(told.out)
    assert (
        result["bandwidth_gb_s"] > 0
        and result["matmul_gflop_s"] > 0
        and set(result["stages"]) == {"encoder", "thinker", "talker", "vocoder"}
    )
    for stage in result["stages"].values():
        assert stage.keys() >= {"bytes_per_step", "flops_per_step", "fraction_of_limit"}
        limits = stage["bytes_per_step"] / result["bandwidth_gb_s"] / 1e6, stage["flops_per_step"] / result["matmul_gflop_s"] / 1e6
        assert stage["limit_ms"] == pytest.approx(max(limits), rel=0.01, abs=0.001)
        assert stage["bound"] == ("bandwidth", "matmul")[limits[1] > limits[0]]
    assert is_png(Path("out/roofline.png"))


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["--model", "none/at/all/here"], 1, ["none/at/all/here"]),
        (["--model", "nano", "--recipe", "nano/mtp5"], 2, ["--model nano and --recipe nano/mtp5"]),
        (["--set", "train.lr=1"], 2, ["train.lr", "latency.KEY=VALUE"]),
        (["--set", "latency.repeets=1"], 1, ["latency.repeets", "latency.repeats"]),
        (["--set", "latency.repeats=0"], 1, ["latency.repeats is 0"]),
        (["--recipe", "t6-1b"], 1, ["VocalNet/VocalNet-1B", "vocalnet models pull VocalNet/VocalNet-1B", "nano/latency"]),
        (["--benchmark", "nano-voise"], 2, ["nano-voise", "nano-voice"]),
        (["--dtype", "fp8"], 2, ["fp8", "bf16"]),
        (["--limit", "3", "compare", "a", "b"], 2, ["before `compare`", "vocalnet latency compare"]),
        (["compare", "nano"], 2, ["compare --help"]),
        (["compare", "nano", "streaming=true"], 2, ["streaming", "Nearest: generation.streaming"]),
        (["compare", "nano", "dtype="], 2, ["no value in dtype="]),
        (["compare", "nano", ""], 2, ["nothing stands there"]),
        (["talker", "--size", "2b"], 2, ["'2b'", "nano, 1b, 8b"]),
        (["talker", "--size", "nano", "--compare", "ntp,mpt3"], 2, ["mpt3", "Nearest: mtp"]),
        (["talker", "--size", "nano", "--compare", "ntp,ntp"], 2, ["twice"]),
        (["talker", "--size", "nano", "--compare", "ntp3"], 1, ["tokens_per_step is 3"]),
        (["vocoder", "--size", "nano", "--set", "model.vocoder.kind=griffin-lim"], 2, ["not cosyvoice2"]),
        (["vocoder", "--size", "nano", "--set", "model.vocoder.steps=11"], 1, ["model.vocoder.steps is 11"]),
        (["talker", "--size", "nano", "--compare", "mdm17"], 1, ["steps is 17"]),
        (["--steps", "many"], 1, ["generation.steps"]),
    ],
)
def test_mistakes_end_in_two_lines(vocalnet, command, code, words):
    told = vocalnet("latency", *command)
    assert told.code == code and told.out == "" and len(lines(told.err)) <= 3, told.err
    assert all(word in told.err for word in words), told.err


def test_a_chart_that_cannot_be_drawn_is_told_first(vocalnet, model, monkeypatch):
    monkeypatch.setattr(chart, "can_draw", lambda: False)
    told = vocalnet("latency", "--model", model, *FEW, "-o", "out")
    assert told.code == 1 and len(lines(told.err)) == 2 and "vocalnet-cli[eval]" in told.err and not Path("out").exists()


def test_a_talker_too_large_is_refused_before_it_is_built(vocalnet, monkeypatch):
    from vocalnet_cli.core.latency import random_parts

    monkeypatch.setattr(random_parts, "devices_gb", lambda: {"cpu": 2.0})
    told = vocalnet("latency", "talker", "--size", "8b", "--device", "cpu", "--dtype", "fp32")
    assert told.code == 1 and "has 2 GB" in told.err and "--dtype bf16" in told.err
