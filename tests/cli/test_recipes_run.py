"""`vocalnet recipes run`: a table's rows trained, measured and summed up; stops, failures, changed recipes, missing parts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.tiny import save_tiny, tiny_settings
from vocalnet_cli.core.config import find
from vocalnet_cli.core.data.claim import LOCK_FILE, claimed
from vocalnet_cli.core.experiments import plan, run
from vocalnet_cli.core.experiments.grid import make_grid
from vocalnet_cli.core.experiments.share import claim_of
from vocalnet_cli.core.experiments.table import find_table
from vocalnet_cli.core.training.loop import Checkpoints

DIGITS = Path(__file__).parents[1] / "assets" / "digits"
WORDS = "zero one two three four five".split()
ROWS = {
    "ntp": {"model": {"talker": {"kind": "ntp"}}, "generation": {"tokens_per_step": 1}},
    "mtp3": {"generation": {"tokens_per_step": 3}},
    "mtp10": {"generation": {"tokens_per_step": 2}},
}
EXPECT = {"ntp": 10.62, "mtp3": 5.66, "mtp10": 6.84}
PLACES = {"mtp10": 1, "ntp": 3}
STEPS = 6


def write_row(root: Path, name: str, changes: dict, family: str = "nano", arxiv: str = "2504.04060", table: str = "5") -> None:
    row = name.removeprefix("ablation-")
    paper = {"arxiv": arxiv, "table": table, "row": row.upper(), "expect": {"wer_percent": EXPECT.get(row, 1.0)}}
    if row in PLACES:
        paper["place"] = PLACES[row]
    recipe = {"extends": "nano/ablation-base", "about": f"row {row}", "paper": paper, **changes}
    (root / family).mkdir(exist_ok=True)
    (root / family / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes with a table of three tiny rows; the working directory holds their corpus and the weights they start from."""
    here = tmp_path / "here"
    model = save_tiny(here / "runs/nano/align/model")
    rows = []
    (here / "digits").symlink_to(DIGITS)
    for number, word in enumerate(WORDS):
        wav = f"digits/{number}_jackson_10.wav"
        sound = {"text": word, "audio": wav}
        rows.append({"id": word, "source": "test", "split": "train" if number < 5 else "dev", "question": sound, "answer": sound})
    (here / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    settings = tiny_settings(json.loads((model / "config.json").read_text())["model"]["thinker"]["vocab"])
    base = {
        "stage": "speak",
        "model": settings.model_dump(mode="json"),
        "init": {part: "runs/nano/align/model" for part in ("tokenizer", "encoder", "adaptor", "thinker", "vocoder")},
        "data": {"manifest": "manifest.jsonl", "max_question_s": 2, "cache": True},
        "train": {"steps": STEPS, "batch_size": 2, "log_every": 1, "save_every": 2, "eval_every": 3},
        "generation": {"max_text_tokens": 5, "max_speech_tokens": 12, "tokens_per_step": 2},
        "eval": {"benchmarks": ["manifest.jsonl"], "limit": 2},
    }
    folder = tmp_path / "recipes"
    (folder / "nano").mkdir(parents=True)
    (folder / "nano/ablation-base.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    for name, changes in ROWS.items():
        write_row(folder, f"ablation-{name}", changes)
    write_row(folder, "mtp5", {})  # a twin of the same table that is no ablation
    monkeypatch.setattr(find, "recipe_root", lambda: folder)
    monkeypatch.chdir(here)
    return folder


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Models are not asked: scores follow from row and seed. Returns the (row, seed) of each measurement."""
    cells: list[tuple[str, int]] = []

    def measure(folder: Path, benchmarks: list[str], *, seed: int, **_: object) -> dict:
        assert (folder / "talker.safetensors").is_file()
        cells.append((folder.parent.parent.name, seed))
        scores = {"n": 2, "failed": 0, "truncated": 0.0, "accuracy": {"s2t": 50.0, "s2s": 25.0}}
        return {"benchmarks": {"first": {**scores, "wer": 10.0 + seed}, "second": {**scores, "wer": 20.0 + seed, "truncated": 50.0}}}

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(plan, "check_benchmarks", lambda *_: None)
    return cells


def test_a_row_is_trained_and_measured_like_by_train_and_eval(root: Path, vocalnet: Callable) -> None:
    pytest.importorskip("pocketsphinx")
    command = ("recipes", "run", "--table", "5", "--seeds", "2", "--limit-rows", "ntp", "-o", "out", "--json")
    told = vocalnet(*command)
    assert told.code == 0, told.err
    results = json.loads(told.out)
    assert results == json.loads(Path("out/results.json").read_text())
    assert (results["paper"], results["table"], results["family"], results["seeds"]) == ("2504.04060", "5", "nano", [0, 1])
    assert set(results["rows"]) == {"ntp"} and results["rows"]["ntp"]["paper_expect"] == {"wer_percent": 10.62}
    runs = results["rows"]["ntp"]["runs"]
    assert [one["seed"] for one in runs] == [0, 1] and runs[0]["loss"] != runs[1]["loss"]
    assert all({"s2t", "s2s", "truncated", "loss", "dev_loss", "train_seconds", "eval_seconds"} <= set(one) for one in runs)
    stored = json.loads(Path("out/ntp/seed-1/cell.json").read_text())["scores"]
    assert stored["benchmarks"]["here"]["n"] == 2 and stored["settings"]["seed"] == 1
    assert "[2 of 2] ntp, seed 1: train" in told.err and not Path("out/ntp/seed-1/checkpoints").exists()
    alone = vocalnet("train", "--recipe", "nano/ablation-ntp", "--seed", "1", "-o", "alone", "--json")
    assert json.loads(alone.out)["loss"] == runs[1]["loss"]
    before = Path("out/ntp/seed-1/model/talker.safetensors").stat().st_mtime_ns
    again = vocalnet(*command)
    assert json.loads(again.out)["rows"] == results["rows"] and "train" not in again.err
    assert Path("out/ntp/seed-1/model/talker.safetensors").stat().st_mtime_ns == before


def test_means_and_deviations_in_the_tables_order(root: Path, vocalnet: Callable, measured: list) -> None:
    shown = vocalnet("recipes", "run", "--table", "5", "--seeds", "2", "--quiet")
    assert shown.code == 0 and shown.err == ""
    assert measured == [(row, seed) for seed in (0, 1) for row in ("mtp10", "ntp", "mtp3")]
    lines = [line.split() for line in shown.out.splitlines() if "wer_percent" in line]
    assert [line[0] for line in lines] == ["mtp10", "ntp", "mtp3"]
    assert "wer_percent 5.66" in shown.out and "15.5 ± 0.7" in shown.out
    results = json.loads(Path("runs/tables/nano-2504.04060-table5/results.json").read_text())
    row = results["rows"]["mtp3"]
    assert [(one["wer"], one["s2t"], one["s2s"], one["truncated"]) for one in row["runs"]] == [(15.0, 50, 25, 25), (16.0, 50, 25, 25)]
    assert row["mean"]["wer"] == 15.5 and row["std"]["wer"] == 0.7071 and row["std"]["s2t"] == 0.0
    # One more seed, asked of one row: the others stay in the sum, and a single run has no deviation.
    one = vocalnet("recipes", "run", "--table", "5", "--seeds", "3", "--limit-rows", "ntp", "--json", "--quiet")
    assert {name: len(row["runs"]) for name, row in json.loads(one.out)["rows"].items()} == {"mtp10": 2, "ntp": 3, "mtp3": 2}
    alone = vocalnet("recipes", "run", "--table", "5", "--seeds", "1", "--limit-rows", "mtp3", "-o", "alone", "--json", "--quiet")
    assert "std" not in json.loads(alone.out)["rows"]["mtp3"]


def test_rows_that_only_draw_otherwise_are_trained_once(root: Path, vocalnet: Callable, measured: list) -> None:
    told = vocalnet("recipes", "run", "--table", "5", "--seeds", "1", "--json")
    assert told.code == 0 and measured == [("mtp10", 0), ("ntp", 0), ("mtp3", 0)]
    assert "mtp3, seed 0 is trained as mtp10, seed 0" in told.err and "ntp, seed 0 is trained as" not in told.err
    configs = {row: json.loads(Path(f"runs/tables/nano-2504.04060-table5/{row}/seed-0/model/config.json").read_text()) for row in ROWS}
    assert {row: config["generation"]["tokens_per_step"] for row, config in configs.items()} == {"ntp": 1, "mtp3": 3, "mtp10": 2}
    assert configs["mtp3"]["recipe"] == "nano/ablation-mtp3"
    runs = {row: one["runs"][0] for row, one in json.loads(told.out)["rows"].items()}
    assert runs["mtp3"]["loss"] == runs["mtp10"]["loss"] != runs["ntp"]["loss"]
    assert vocalnet("train", "--recipe", "nano/ablation-mtp3", "--seed", "0", "-o", "alone").code == 0
    taken, alone = (Path(folder, "model/talker.safetensors") for folder in ("runs/tables/nano-2504.04060-table5/mtp3/seed-0", "alone"))
    assert taken.read_bytes() == alone.read_bytes()


def test_a_model_of_another_table_is_taken_unless_what_it_started_from_is_newer(root: Path, vocalnet: Callable, measured: list) -> None:
    for table in ("7", "9"):
        write_row(root, f"ablation-in{table}", {}, table=table)
    assert vocalnet("recipes", "run", "--table", "5", "--limit-rows", "mtp3", "--seeds", "1").code == 0
    told = vocalnet("recipes", "run", "--table", "7", "--seeds", "2")
    first, taken = (Path(f"runs/tables/nano-2504.04060-table{run}/seed-0") for run in ("5/mtp3", "7/in7"))
    assert told.code == 0 and f"in7, seed 0 is trained as {first}" in told.err and "seed 1 is trained as" not in told.err
    assert (first / "model/talker.safetensors").read_bytes() == (taken / "model/talker.safetensors").read_bytes()
    assert measured == [("mtp3", 0), ("in7", 0), ("in7", 1)]
    assert vocalnet("train", "--recipe", "nano/ablation-ntp", "--seed", "1").code == 0  # into runs/nano/ablation-ntp
    alone = vocalnet("recipes", "run", "--table", "5", "--limit-rows", "ntp", "--seeds", "2")
    assert "ntp, seed 1 is trained as runs/nano/ablation-ntp" in alone.err and "seed 0 is trained as" not in alone.err
    later = (first / "origin.json").stat().st_mtime + 1
    os.utime("runs/nano/align/model/config.json", (later, later))
    again = vocalnet("recipes", "run", "--table", "9", "--seeds", "1")
    assert again.code == 0 and "is trained as" not in again.err


def test_a_failing_run_is_counted_and_the_others_go_on(root: Path, vocalnet: Callable, measured: list) -> None:
    write_row(root, "ablation-a-loss", {"train": {"lr": 1e30, "warmup": 0.0}})
    told = vocalnet("recipes", "run", "--table", "5", "--seeds", "1", "--limit-rows", "mtp3,a-loss", "--json", "--quiet")
    assert told.code == 1 and measured == [("mtp3", 0)]
    results = json.loads(told.out)
    assert len(results["rows"]["mtp3"]["runs"]) == 1 and results["rows"]["a-loss"]["runs"] == []
    assert [(one["row"], one["seed"]) for one in results["failed"]] == [("a-loss", 0)]
    assert "the loss is nan at step 2" in results["failed"][0]["error"]
    lines = told.err.strip().splitlines()
    assert "a-loss, seed 0: the loss is nan" in lines[0] and "1 of 2 runs failed: a-loss with seed 0" in lines[-2]


def test_questions_that_fail_leave_the_run_to_be_measured(root: Path, vocalnet: Callable, measured: list, monkeypatch) -> None:
    whole = run.measure

    def failing(*args: object, **options: object) -> dict:
        result = whole(*args, **options)
        result["benchmarks"]["first"]["failed"] = 1
        return result

    command = ("recipes", "run", "--table", "5", "--seeds", "1", "--limit-rows", "ntp", "--json", "--quiet")
    monkeypatch.setattr(run, "measure", failing)
    told = vocalnet(*command)
    assert told.code == 1 and "1 questions could not be answered" in told.err and json.loads(told.out)["rows"]["ntp"]["runs"] == []
    monkeypatch.setattr(run, "measure", whole)
    monkeypatch.setattr(run, "run_training", None)  # nothing is trained again
    assert len(json.loads(vocalnet(*command).out)["rows"]["ntp"]["runs"]) == 1


def test_a_changed_recipe_is_refused_and_nothing_is_lost(root: Path, vocalnet: Callable, measured: list) -> None:
    command = ("recipes", "run", "--table", "5", "--seeds", "1", "--limit-rows", "mtp3", "-o", "out", "--quiet")
    assert vocalnet(*command).code == 0
    before = Path("out/results.json").read_bytes()
    for change in (
        ("--set", "train.lr=1e-4"),
        ("--limit", "1"),
        ("--limit-rows", "ntp", "--set", "train.steps=4"),
        ("--dry-run", "--limit", "1"),
    ):
        told = vocalnet(*command, *change)
        lines = told.err.strip().splitlines()
        assert told.code == 1 and len(lines) == 2 and "out/mtp3/seed-0" in lines[0] and "-o" in lines[1], told.err
    assert "train.lr was 0.0005, is 0.0001" in vocalnet(*command, "--set", "train.lr=1e-4").err
    assert Path("out/results.json").read_bytes() == before and len(measured) == 1
    write_row(root, "ablation-mtp3", {**ROWS["mtp3"], "about": "told in other words", "tried": ["nothing"]})
    assert vocalnet(*command).code == 0 and len(measured) == 1


def test_a_stopped_table_goes_on_to_the_same_numbers(root: Path, vocalnet: Callable, measured: list, monkeypatch) -> None:
    command = ("recipes", "run", "--table", "5", "--seeds", "2", "--limit-rows", "mtp3", "--set", "train.clip=0.5", "--quiet")
    assert vocalnet(*command, "-o", "straight").code == 0
    del measured[:]
    whole = Checkpoints.on_save

    def stop_after_the_save(self, args, state, control, **more) -> None:
        whole(self, args, state, control, **more)
        if args.seed == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Checkpoints, "on_save", stop_after_the_save)
    told = vocalnet(*command, "-o", "a folder")
    monkeypatch.setattr(Checkpoints, "on_save", whole)
    lines = told.err.strip().splitlines()
    assert told.code == 130 and len(lines) == 2 and "mtp3, seed 1: SIGINT" in lines[0]
    planned = json.loads(vocalnet(*command, "-o", "a folder", "--dry-run", "--json").out)
    assert planned["rows"]["mtp3"]["seeds"] == {"0": "done", "1": "resume"} and planned["missing"] == []
    again = shlex.split(lines[1].removeprefix("Continue with: "))
    assert again[0] == "vocalnet" and vocalnet(*again[1:]).code == 0
    assert measured == [("mtp3", 0), ("mtp3", 1)]
    straight, stopped = (
        json.loads(Path(folder, "results.json").read_text())["rows"]["mtp3"]["runs"] for folder in ("straight", "a folder")
    )
    assert [(one["seed"], one["loss"], one["dev_loss"]) for one in stopped] == [
        (one["seed"], one["loss"], one["dev_loss"]) for one in straight
    ]


def test_a_stop_while_questions_are_asked_keeps_the_model(root: Path, vocalnet: Callable, measured: list, monkeypatch) -> None:
    command = ("recipes", "run", "--table", "5", "--seeds", "1", "--limit-rows", "ntp", "-o", "out")
    whole = run.measure

    def stopped(*_: object, **__: object) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure", stopped)
    told = vocalnet(*command, "--quiet")
    assert told.code == 130 and "ntp, seed 0: interrupted" in told.err and "vocalnet recipes run --table 5" in told.err
    monkeypatch.setattr(run, "measure", whole)
    assert "evaluate" in vocalnet(*command, "--dry-run").out
    monkeypatch.setattr(run, "run_training", None)  # nothing is trained again
    assert vocalnet(*command).code == 0 and measured == [("ntp", 0)]


def test_missing_weights_are_told_at_once_before_anything_is_trained(root: Path, vocalnet: Callable, measured: list) -> None:
    write_row(root, "ablation-ntp", {**ROWS["ntp"], "init": {"vocoder": "runs/nano/speech-tokenizer/model"}})
    shutil.rmtree("runs/nano")
    command = ("recipes", "run", "--table", "5", "--limit-rows", "ntp,mtp3", "--seeds", "1")
    told = vocalnet(*command)
    problem, hint = told.err.strip().splitlines()
    assert told.code == 1 and "runs/nano/align/model (tokenizer, encoder, adaptor, thinker, vocoder)" in problem
    assert "runs/nano/speech-tokenizer/model (vocoder)" in problem
    assert hint.endswith("vocalnet train --recipe nano/align; vocalnet train --recipe nano/speech-tokenizer")
    assert not Path("runs").exists() or not any(Path("runs").rglob("*.*"))
    planned = json.loads(vocalnet(*command, "--dry-run", "--json").out)
    assert [(one["weights"], one["rows"]) for one in planned["missing"]] == [
        ("runs/nano/align/model", ["ntp", "mtp3"]),
        ("runs/nano/speech-tokenizer/model", ["ntp"]),
    ]
    trainable = {name: row["trainable"] for name, row in planned["rows"].items()}
    assert 0 < trainable["ntp"] < trainable["mtp3"]
    assert "vocalnet train --recipe nano/align" in vocalnet(*command, "--dry-run").out


def test_a_corpus_or_question_set_that_is_missing_is_told_first(root: Path, vocalnet: Callable) -> None:
    pytest.importorskip("pocketsphinx")
    command = ("recipes", "run", "--table", "5", "--seeds", "1", "--limit-rows", "ntp", "-o", "out")
    told = vocalnet(*command, "--set", "eval.benchmarks=[nano-voise]")
    assert told.code == 1 and "eval.benchmarks: nano-voise" in told.err and len(told.err.strip().splitlines()) == 2
    told = vocalnet(*command, "--set", "data.manifest=none.jsonl")
    assert told.code == 1 and "none.jsonl" in told.err and len(told.err.strip().splitlines()) == 2
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--table", "99"], ["--table 99", "table 5 of 2504.04060"]),
        (["--table", "5", "--family", "macro"], ["--family macro", "nano"]),
        (["--table", "5", "--limit-rows", "ntp,mtp4"], ["mtp4", "mtp10, ntp, mtp3"]),
        (["--table", "5", "--limit-rows", ","], ["names no row", "ntp"]),
        (["--table", "5", "--paper", "2602.08607"], ["2602.08607", "2504.04060"]),
        (["--table", "5", "--set", "train.seed=3"], ["train.seed", "--seeds"]),
        (["--table", "5", "--seeds", "0"], ["--seeds", "recipes run --help"]),
        (["--seeds", "2"], ["--table", "recipes run --help"]),
    ],
)
def test_usage_mistakes_end_in_two_lines(root: Path, vocalnet: Callable, options: list[str], words: list[str]) -> None:
    told = vocalnet("recipes", "run", *options)
    assert told.code == 2 and told.out == "" and len(told.err.strip().splitlines()) == 2
    assert all(word in told.err for word in words), told.err


def test_a_table_of_two_papers_wants_the_paper_named(root: Path, vocalnet: Callable) -> None:
    write_row(root, "ablation-mdm", {}, arxiv="2602.08607")
    told = vocalnet("recipes", "run", "--table", "5", "--dry-run")
    assert told.code == 2 and len(told.err.strip().splitlines()) == 2
    assert "--paper 2504.04060" in told.err and "--paper 2602.08607" in told.err
    chosen = vocalnet("recipes", "run", "--table", "5", "--dry-run", "--json", "--paper", "2602.08607", "--seeds", "1")
    assert set(json.loads(chosen.out)["rows"]) == {"mdm"}


def test_other_families_are_taken_whole(root: Path, vocalnet: Callable) -> None:
    write_row(root, "mtp7", {}, family="vocalnet")
    write_row(root, "ablation-x", {}, family="vocalnet")
    planned = json.loads(vocalnet("recipes", "run", "--table", "5", "--family", "vocalnet", "--dry-run", "--json", "--seeds", "1").out)
    assert {name: row["recipe"] for name, row in planned["rows"].items()} == {"ablation-x": "vocalnet/ablation-x", "mtp7": "vocalnet/mtp7"}
    assert planned["output"] == "runs/tables/vocalnet-2504.04060-table5" and not Path(planned["output"]).exists()


def test_two_commands_share_a_table(root: Path, vocalnet: Callable, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_table("nano", "5", None)
    grid = make_grid(found, found.choose(None), 1, None, [])
    of_another = claimed(claim_of(grid, next(cell for cell in grid.asked if cell.row.name == "mtp10")))
    assert of_another.__enter__()
    waited = []

    def other_ends(_: float) -> None:
        waited.append(list(measured))
        of_another.__exit__(None, None, None)

    monkeypatch.setattr(run.time, "sleep", other_ends)
    told = vocalnet("recipes", "run", "--table", "5", "--seeds", "1", "--json")
    assert told.code == 0 and "2 runs wait for another command that works on them: mtp10, seed 0" in told.err
    assert waited == [[("ntp", 0)]]  # mtp3 is trained as mtp10 is: it waits too
    assert measured == [("ntp", 0), ("mtp10", 0), ("mtp3", 0)]
    assert all(len(row["runs"]) == 1 for row in json.loads(told.out)["rows"].values())


def test_a_folder_is_trained_in_by_one_command_at_a_time(root: Path, vocalnet: Callable) -> None:
    train = ("train", "--recipe", "nano/ablation-ntp", "-o", "out", "--quiet")
    with claimed(Path("out") / LOCK_FILE):
        told = vocalnet(*train)
    assert told.code == 1 and told.err.startswith("out: another command trains there now\n") and not Path("out/model").exists()
    assert vocalnet(*train).code == 0
