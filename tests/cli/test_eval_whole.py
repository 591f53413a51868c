"""From a folder laid out as OpenAudioBench, spoken by flite, to scores, a table and a page; nothing is replaced but the judge."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chromium import needs_chromium, play
from tests.judge import FakeJudge, serving
from vocalnet_cli.core.evaluation.results import read_run

pytest.importorskip("pocketsphinx")

CORPORA = Path(__file__).parents[1] / "assets" / "corpora"
COLUMNS = {
    "alpaca_eval": ("dataset", "instruction", "output", "generator"),
    "llama_questions": ("Questions", "Answer"),
    "trivia_qa": ("question", "answer_normalized_value", "answer_normalized_aliases"),
    "web_questions": ("question", "answers"),
}
"""OpenAudioBench's, beside `audio_filename`."""


def rows() -> dict[str, list[tuple[str, ...]]]:
    """Questions of VocalBench as rows of the four sets; those of the second are nano's own, so that some answers are right."""
    open_ones = json.loads((CORPORA / "vocalbench_single_round_60.json").read_text())
    known = json.loads((CORPORA / "vocalbench_knowledge_6.json").read_text())
    short = sorted((row["Question"] for row in open_ones), key=len)[:2]
    return {
        "alpaca_eval": [("vicuna", question, "", "gpt4") for question in short],
        "llama_questions": [("what is three plus five", "eight"), ("what is two plus four", "six")],
        "trivia_qa": [(row["Question"], row["Answer"], row["Answer"].upper()) for row in known if row["Source"] == "triviaqa-dev"][:2],
        "web_questions": [(row["Question"], f"{row['Answer']};Nobody") for row in known if row["Source"] == "webq-test"],
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The folder, eight questions in flite's voice."""
    root = tmp_path_factory.mktemp("published") / "OpenAudioBench"
    for name, listed in rows().items():
        folder = root / "eval_datas" / name
        (folder / "audios").mkdir(parents=True)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([*COLUMNS[name], "audio_filename"])
            for number, row in enumerate(listed):
                wav = f"{name}_{number}.wav"
                question = row[COLUMNS[name].index("instruction") if name == "alpaca_eval" else 0]
                subprocess.run(["flite", "-voice", "slt", "-t", question, "-o", str(folder / "audios" / wav)], check=True)
                table.writerow([*row, wav])
    return root


@needs_chromium
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs the Debian package flite")
def test_from_published_questions_to_a_table_and_a_page(vocalnet, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOCALNET_CACHE", str(tmp_path / "cache"))
    fake = FakeJudge()
    with serving(fake) as url:
        told = vocalnet("eval", "--model", "nano", "--benchmark", published, "--judge-url", url, "-o", "scores", "--json")
    assert told.code == 0, told.err
    report = json.loads(told.out)
    assert {name: scores["n"] for name, scores in report["benchmarks"].items()} == dict.fromkeys(COLUMNS, 2)
    assert sum(fake.paid.values()) == 2 * 8, "each answer in text and as heard"
    assert report["benchmarks"]["llama_questions"]["accuracy"]["s2t"] == 100.0 and report["benchmarks"]["alpaca_eval"]["score"]["s2t"] >= 1
    assert all(row.audio_s > 0.2 and row.heard for sets in read_run("scores").questions.values() for row in sets)

    table = json.loads(vocalnet("eval", "table", "1", "--results", "scores", "--subsets", "--json").out)
    (ours,) = [line for line in table["lines"] if line["ours"]]
    assert ours["ours"]["s2t_score@llama_questions"] == 10.0 and not ours["difference"]
    assert any("fake-judge" in why for why in table["not_compared"]["s2t_score"]), "another judge than the paper's"
    for form in ("markdown", "latex", "csv"):
        assert "fake-judge" in vocalnet("eval", "table", "1", "--results", "scores", "--format", form).out

    page = json.loads(vocalnet("eval", "report", "scores", "--json").out)["page"]
    assert play(Path(page).resolve(), tmp_path / "profile") == "played 16"
