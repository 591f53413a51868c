"""`vocalnet eval table`: the papers' rows and ours, differences only where they may be taken, in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.runs import RULE, write_results
from vocalnet_cli.core.evaluation.results import Judging

QWEN = Judging(judge="qwen-max", scale="0-10", prompt="vocalnet-1/open", prompt_sha256="ef" * 32, temperature=0.0)
COUNTS = {"alpaca_eval": 199, "llama_questions": 300, "trivia_qa": 1000, "web_questions": 1000}
RUNS = Path("runs/tables/nano-2504.04060-table5")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def measured(wer: float, right: float, **more: object) -> dict:
    """What cell.json keeps of one run."""
    kinds = {"sub": wer - 3, "ins": 2.0, "del": 1.0}
    scores = {"n": 60, "failed": 0, "wer": wer, "wer_kinds": kinds, "accuracy": {"s2t": 80.0, "s2s": right}}
    told = {
        "model": "runs/x", "recipe": None, "weights_sha256": f"{wer:05.1f}".replace(".", "") * 16, "benchmarks": {"nano-ablation": scores},
        "judge": "rule", "judging": {"nano-ablation": RULE.model_dump()}, "recogniser": "pocketsphinx 5.1.1, loop",
        "normaliser": "lower case",
        "versions": {"vocalnet": "0.1.0", "torch": "2.13.0"}, "date": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return {**told, **more}


def table_5(**more: object) -> None:
    """What `recipes run --table 5` leaves: NTP and MTP with two seeds each, the others not run."""
    rows = {}
    for name, wers in {"ntp": (20.0, 22.0), "mtp3": (12.0, 13.0), "mtp5": ()}.items():
        for seed, wer in enumerate(wers):
            cell = RUNS / name / f"seed-{seed}" / "cell.json"
            cell.parent.mkdir(parents=True)
            cell.write_text(json.dumps({"scores": measured(wer, 90 - wer, **(more if name == "mtp3" else {}))}))
        runs = [{"seed": seed, "wer": wer} for seed, wer in enumerate(wers)]
        rows[name] = {"recipe": f"nano/ablation-{name}", "paper_row": name, "paper_expect": {}, "runs": runs}
    RUNS.mkdir(parents=True, exist_ok=True)
    (RUNS / "results.json").write_text(json.dumps({"rows": rows, "versions": {"vocalnet": "0.1.0"}, "date": "2026"}))


def open_audio_bench(folder: Path, judging: Judging = QWEN, recogniser: str = "openai/whisper-large-v3, greedy", **counts: int) -> Path:
    """A whole measurement on the four subsets: scores 6, 7, 8, 9 in text, word errors 1, 2, 3, 4 %."""
    sets = {}
    for number, (name, n) in enumerate({**COUNTS, **counts}.items()):
        score = {"s2t": 6.0 + number, "s2s": 5.0 + number}
        sets[f"openaudiobench-{name}"] = {"n": n, "failed": 0, "score": score, "wer": 1.0 + number, "utmos": 4.4}
    told = {"judging": dict.fromkeys(sets, judging), "judge": judging.judge, "recogniser": recogniser, "model": "ours-1b"}
    return write_results(folder, sets, recipe="vocalnet/t1-1b", **told)


def load(vocalnet, *args: object) -> dict:
    result = vocalnet("eval", "table", *args, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def line(table: dict, row: str) -> dict:
    (found,) = [one for one in table["lines"] if one["row"] == row]
    return found


@pytest.mark.parametrize("name", [*map(str, range(1, 12)), "mdm", "mdm-text", "mdm-latency", "mdm-ablation"])
def test_every_table_is_printed_without_ours(vocalnet, name):
    result = vocalnet("eval", "table", name)
    assert result.code == 0, result.err
    assert "paper" in result.out and "Ours: none yet. Make them: vocalnet " in result.out


def test_ours_stand_beside_the_papers_with_what_made_them(vocalnet):
    table_5()
    found = load(vocalnet, "5")
    ntp, mtp = line(found, "NTP baseline"), line(found, "MTP-VocalNet, 5 modules, 3 tokens a step")
    assert (ntp["paper"], ntp["ours"]["wer_percent"], ntp["std"]["wer_percent"]) == ({"wer_percent": 10.62, "utmos": 4.488}, 21.0, 1.4142)
    assert mtp["ours"]["wer_percent"] == 12.5 and mtp["runs"] == 2
    assert not mtp["difference"], "another recogniser and other questions: nothing is subtracted"
    assert mtp["from_first"] == {"wer_percent": {"paper": -46.7, "ours": -40.5}}
    (why,) = [reasons for column, reasons in found["not_compared"].items() if column == "wer_percent"]
    assert any("pocketsphinx" in one and "Whisper-large-v3" in one for one in why) and any("nano-ablation (60)" in one for one in why)
    (made,) = mtp["made"]
    assert made["recipe"] == "nano/ablation-mtp3" and len(made["weights"]) == 2 and made["judges"] == ["rule, right, the reference is said"]
    shown = vocalnet("eval", "table", "5").out
    assert "21.00 ± 1.41" in shown and "-47 %, -40 %" in shown and "weights 0120" in shown and "none yet" not in shown


def test_kinds_of_errors_come_from_the_runs_of_table_5(vocalnet):
    table_5()
    found = load(vocalnet, "10")
    assert line(found, "NTP baseline")["ours"] == {"sub_percent": 18.0, "ins_percent": 2.0, "del_percent": 1.0, "wer_percent": 21.0}


def test_differences_are_taken_where_judge_recogniser_and_questions_are_the_papers(vocalnet, tmp_path):
    folder = open_audio_bench(tmp_path / "scores")
    found = load(vocalnet, "1", "--results", folder, "--family", "vocalnet", "--subsets")
    ours = line(found, "VocalNet-1B")
    assert ours["ours"]["s2t_score"] == 7.5 and ours["ours"]["s2t_score@trivia_qa"] == 8.0
    assert ours["difference"]["s2t_score"] == pytest.approx(7.5 - 5.43) and ours["difference"]["s2s_score@web_questions"] == pytest.approx(
        3.32
    )
    assert found["not_compared"] == {} and not ours["from_first"]
    assert "+2.07" in vocalnet("eval", "table", "1", "--results", folder).out


def test_averages_of_word_errors_are_weighted_by_questions(vocalnet, tmp_path):
    folder = open_audio_bench(tmp_path / "scores")
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "recipe": "vocalnet/t2-1b"}))
    ours = line(load(vocalnet, "2", "--results", folder), "VocalNet-1B")
    wanted = sum((1 + number) * n for number, n in enumerate(COUNTS.values())) / sum(COUNTS.values())
    assert ours["ours"]["wer_percent"] == pytest.approx(wanted, abs=1e-4) and ours["difference"]["utmos"] == pytest.approx(4.4 - 4.49)


@pytest.mark.parametrize(
    "changed, told",
    [
        ({"judging": RULE}, "judge: rule, right"),
        ({"judging": QWEN.model_copy(update={"judge": "gpt-4o"})}, "judge: gpt-4o"),
        ({"trivia_qa": 40}, "openaudiobench-trivia_qa (40)"),
    ],
)
def test_scores_of_another_judge_or_fewer_questions_are_not_subtracted(vocalnet, tmp_path, changed, told):
    found = load(vocalnet, "1", "--results", open_audio_bench(tmp_path / "scores", **changed))
    assert any(told in reason for reason in found["not_compared"]["s2t_score"])
    assert not line(found, "VocalNet-1B")["difference"] and line(found, "VocalNet-1B")["ours"]["s2t_score"] == 7.5


def test_one_subset_compares_with_its_own_column_and_not_with_the_average(vocalnet, tmp_path):
    folder = open_audio_bench(tmp_path / "scores")
    report = json.loads((folder / "report.json").read_text())
    report["benchmarks"] = {name: one for name, one in report["benchmarks"].items() if name.endswith("trivia_qa")}
    (folder / "report.json").write_text(json.dumps(report))
    found = load(vocalnet, "1", "--results", folder, "--subsets")
    assert set(line(found, "VocalNet-1B")["difference"]) == {"s2t_score@trivia_qa", "s2s_score@trivia_qa"}
    assert set(found["not_compared"]) == {"s2t_score", "s2s_score"}


def test_right_answers_never_stand_under_a_score(vocalnet, tmp_path):
    sets = {"nano-voice": {"n": 120, "failed": 0, "accuracy": {"s2t": 70.0, "s2s": 60.0}}}
    found = load(vocalnet, "1", "--results", write_results(tmp_path / "nano", sets))
    ours = line(found, "nano")
    assert ours["ours"] == {"s2t_percent": 70.0, "s2s_percent": 60.0} and ours["paper"] == {} and not ours["difference"]
    assert found["instead"] == {"s2t_score": "s2t_percent", "s2s_score": "s2s_percent"}
    assert "text right %, ours" in vocalnet("eval", "table", "1", "--results", tmp_path / "nano").out


@pytest.mark.parametrize(
    "more, told",
    [
        ({"judging": {"nano-ablation": QWEN.model_dump()}}, "judge or scale"),
        ({"recogniser": "openai/whisper-small"}, "recogniser"),
        ({"normaliser": "none"}, "normaliser"),
    ],
)
def test_rows_of_ours_that_were_not_measured_alike_are_refused(vocalnet, more, told):
    table_5(**more)
    result = vocalnet("eval", "table", "5")
    assert result.code == 1 and f"differ in their {told}" in result.err and "ntp" in result.err and "mtp3" in result.err
    assert len(result.err.splitlines()) == 2 and "--mixed" in result.err
    assert vocalnet("eval", "table", "5", "--mixed").code == 0


def test_mdm_rows_are_found_by_their_passes(vocalnet, tmp_path):
    for steps in (1, 4, "auto"):
        sets = {"nano-voice": {"n": 120, "failed": 0, "wer": 30.0 if steps == 1 else 20.0}}
        write_results(tmp_path / "curve" / f"steps-{steps}", sets, recipe="nano/mdm", settings={"steps": steps})
    found = load(vocalnet, "mdm", "--results", tmp_path / "curve")
    assert line(found, "VocalNet-MDM, 1 step")["ours"] == {"wer_percent": 30.0}
    assert line(found, "VocalNet-MDM, 4 steps")["ours"] == {"wer_percent": 20.0} and line(found, "nano/mdm, auto steps")["ours"]


def test_ablations_are_known_by_their_place_and_not_by_their_passes(vocalnet, tmp_path):
    for name, wer in (("mdm-s1", 20.0), ("mdm-alpha0", 60.0)):
        sets = {"nano-ablation": {"n": 60, "failed": 0, "wer": wer}}
        write_results(tmp_path / name, sets, recipe=f"nano/ablation-{name}", settings={"steps": 1})
    both = ("--results", tmp_path / "mdm-s1", "--results", tmp_path / "mdm-alpha0")
    found = load(vocalnet, "mdm", *both)
    assert line(found, "VocalNet-MDM, 1 step")["ours"] == {"wer_percent": 20.0}
    assert [one["row"] for one in found["lines"] if one["ours"]] == ["VocalNet-MDM, 1 step"]
    found = load(vocalnet, "mdm-ablation", *both)
    assert line(found, "stage 3 without distillation (alpha 0), 1 step")["ours"] == {"wer_percent": 60.0}


def test_latency_stands_in_its_tables_with_its_machine(vocalnet, tmp_path):
    stages = {name: {"p50": 10.0} for name in ("encoder", "thinker", "talker", "vocoder", "python")}
    times = {"model": "nano", "recipe": "nano/mtp5", "device": "cpu", "dtype": "fp32", "threads": 2, "load_1m": 1.5, "n": 9, "questions": 3,
             "stages_ms": stages, "first_audio_ms": {"p50": 41.5}, "tokens_per_s": 500.0, "rtf": 0.11, "settings": {"steps": 4},
             "versions": {"vocalnet": "0.1.0"}, "date": "2026"}  # fmt: skip
    (tmp_path / "times").mkdir()
    (tmp_path / "times" / "latency.json").write_text(json.dumps(times))
    found = load(vocalnet, "6", "--results", tmp_path / "times")
    assert line(found, "nano")["ours"]["first_audio_ms"] == 41.5 and "cpu, fp32, 2 threads" in found["not_compared"]["talker_ms"][0]
    assert line(load(vocalnet, "8", "--results", tmp_path / "times"), "MiniCPM-o")["paper"] == {"first_audio_ms": 893.82}
    row = {"arxiv": "2504.04060", "table": "6", "row": "VocalNet-8B", "place": 2}
    again = {**times, "model": "models/mine", "recipe": None, "stands_for": row, "device": "cuda:0", "device_name": "NVIDIA L20"}
    (tmp_path / "times" / "latency.json").write_text(json.dumps(again))
    for name in ("6", "8"):
        there = line(load(vocalnet, name, "--results", tmp_path / "times"), "VocalNet-8B")
        assert there["difference"]["first_audio_ms"] == pytest.approx(41.5 - 428.38), "what the recipe stands for counts, not the model's"


def test_released_models_and_answers_of_others_stand_by_their_names(vocalnet, tmp_path):
    scores = {"nano-voice": {"n": 120, "failed": 0, "score": {"s2t": 7.0, "s2s": 6.0}}}
    known = {"VocalNet/VocalNet-8B": "VocalNet-8B", "glm-4-voice": "GLM-4-Voice"}
    folders = [write_results(tmp_path / str(number), scores, model=name) for number, name in enumerate((*known, "other"))]
    found = load(vocalnet, "1", *(word for folder in folders for word in ("--results", folder)))
    assert {one["row"] for one in found["lines"] if one["ours"]} == {*known.values(), "other"}
    assert line(found, "GLM-4-Voice")["paper"] and not line(found, "other")["paper"]


def test_markdown_latex_and_csv_say_the_same(vocalnet):
    table_5()
    found = load(vocalnet, "5")
    marked = vocalnet("eval", "table", "5", "--format", "markdown").out.splitlines()
    bars = [one for one in marked if one.startswith("|")]
    assert len(bars) == 2 + len(found["lines"]) and len({one.count(" | ") for one in bars}) == 1 and "12.50 ± 0.71" in "".join(bars)
    tex = vocalnet("eval", "table", "5", "--format", "latex").out
    body = [one for one in tex.splitlines() if one.endswith(r"\\")]
    assert len(body) == 1 + len(found["lines"]) and len({one.count(" & ") for one in body}) == 1 and r"12.50 $\pm$ 0.71" in tex
    assert tex.startswith("% ") and r"WER \%, paper" in tex
    rows = list(csv.DictReader(io.StringIO(vocalnet("eval", "table", "5", "--format", "csv").out)))
    assert [row["row"] for row in rows] == [one["row"] for one in found["lines"]]
    mtp = next(row for row in rows if row["recipe"] == "nano/ablation-mtp3")
    assert (mtp["wer_percent paper"], mtp["wer_percent ours"], mtp["runs"]) == ("5.66", "12.5", "2") and "rule" in mtp["judges"]


@pytest.mark.parametrize(
    "args, code, told",
    [
        (("12",), 2, "table 12: no such table"),
        (("5", "--family", "nana"), 2, "--family nana: no such family"),
        (("5", "--format", "word"), 2, "--format word: no such form"),
        (("5", "--results", "nowhere"), 1, "nowhere: holds no results"),
    ],
)
def test_mistakes_are_told_in_two_lines(vocalnet, args, code, told):
    result = vocalnet("eval", "table", *args)
    assert result.code == code and told in result.err and len(result.err.splitlines()) == 2


def test_results_of_another_table_and_two_of_one_row_are_told(vocalnet, tmp_path):
    table_5()
    result = vocalnet("eval", "table", "3", "--results", RUNS)
    assert result.code == 1 and "none of its rows are in" in result.err and "recipes run --table 3" in result.err
    a, b = open_audio_bench(tmp_path / "a"), open_audio_bench(tmp_path / "b")
    result = vocalnet("eval", "table", "1", "--results", a, "--results", b)
    assert result.code == 1 and "two results for VocalNet-1B" in result.err
