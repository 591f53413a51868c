"""`vocalnet recipes`, and the failures every command shares: two lines and an exit code."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vocalnet_cli import __version__
from vocalnet_cli.core.config import load
from vocalnet_cli.core.config.find import list_recipes
from vocalnet_cli.core.errors import Interrupted

ROOT = Path(__file__).parents[2]


def test_lists_every_recipe_with_its_paper_row(vocalnet):
    result = vocalnet("recipes")
    assert result.code == 0 and result.err == ""
    for recipe in list_recipes():
        assert recipe.short in result.out
    rows = json.loads(vocalnet("recipes", "--json").out)
    assert [f"{row['family']}/{row['name']}" for row in rows] == [recipe.name for recipe in list_recipes()]
    (row,) = (row for row in rows if (row["family"], row["name"]) == ("vocalnet", "mtp5"))
    assert row["stage"] == "speak" and row["paper"]["table"] == "5" and row["paper"]["expect"]["wer_percent"] == 5.66


def test_a_table_is_listed_with_its_figures_in_its_order(vocalnet):
    result = vocalnet("recipes", "--table", "9")
    assert result.code == 0 and "wer_percent 5.66, utmos 4.495" in result.out and "vocalnet/t9-m5-s3" in result.out
    rows = [row for row in json.loads(vocalnet("recipes", "--table", "9", "--json").out) if row["family"] == "vocalnet"]
    assert [row["paper"]["expect"]["wer_percent"] for row in rows] == [7.79, 5.7, 6.84, 5.66, 6.46, 7.79, 6.14, 6.89, 8.06]
    for args in (("--table", "99"), ("mtp5", "--table", "9")):
        wrong = vocalnet("recipes", *args)
        assert wrong.code == 2 and len(wrong.err.strip().splitlines()) == 2


@pytest.mark.parametrize(("table", "count"), [("1", 2), ("2", 4), ("3", 3), ("4", 2), ("7", 4), ("9", 9), ("11", 2)])
def test_every_row_the_paper_trains_has_a_recipe_and_a_laptop_twin(vocalnet, table, count):
    rows = json.loads(vocalnet("recipes", "--table", table, "--json").out)
    rows = [row for row in rows if row["paper"]["arxiv"] == "2504.04060"]
    named = {family: [row["paper"]["row"] for row in rows if row["family"] == family] for family in ("vocalnet", "nano")}
    assert len(named["vocalnet"]) == count and all(row["paper"]["expect"] for row in rows if row["family"] == "vocalnet")
    assert set(named["nano"]) == {row for row in named["vocalnet"] if "8B" not in row and "VoiceAssistant" not in row}


def test_prints_one_recipe_with_every_setting(vocalnet):
    text = vocalnet("recipes", "mtp5").out
    assert yaml.safe_load(text) == json.loads(vocalnet("recipes", "mtp5", "--json").out)
    assert yaml.safe_load(text)["model"]["thinker"]["hidden"] == 2048


def test_help_keeps_the_lines_of_its_examples(vocalnet):
    lines = [line.strip() for line in vocalnet("recipes", "--help").out.splitlines()]
    assert "vocalnet recipes" in lines and "vocalnet recipes mtp5 --json" in lines


@pytest.mark.parametrize(
    ("args", "code", "value"),
    [
        (["recipes", "mpt5"], 1, "mpt5"),
        (["recipes", "--jason"], 2, "--jason"),
        (["recipies"], 2, "recipies"),
        (["train"], 2, "--recipe"),
        (["infer", "--seed", "many"], 2, "--seed"),
    ],
)
def test_a_mistake_is_two_lines(vocalnet, args, code, value):
    result = vocalnet(*args)
    lines = result.err.strip().splitlines()
    assert (result.code, result.out, len(lines)) == (code, "", 2)
    assert value in lines[0] and "vocalnet" in lines[1]


def test_no_arguments_show_the_help_and_are_a_usage_error(vocalnet):
    for args, command in ((), "recipes"), (("prep",), "synth"):
        result = vocalnet(*args)
        assert result.code == 2 and result.out == "" and "Usage: vocalnet" in result.err and command in result.err


def test_version(vocalnet):
    assert vocalnet("--version").out == f"vocalnet {__version__}\n"


FAILURES = {
    "disk": (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: No space left", "disk space"),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 1, "/root/x: Permission denied", "-o"),
    "defect": (ZeroDivisionError("division\nby zero"), 1, "ZeroDivisionError: division by zero", "--debug"),
    "memory": (MemoryError(), 1, "MemoryError", "--debug"),
    "interrupt": (KeyboardInterrupt(), 130, "interrupted", "again"),
    "saved": (Interrupted("stopped at step 3", "Continue with --resume."), 130, "stopped at step 3", "Continue with --resume."),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_is_two_lines(vocalnet, monkeypatch, name):
    error, code, problem, hint = FAILURES[name]

    def fail(*_):
        raise error

    monkeypatch.setattr(load, "load_recipe", fail)
    monkeypatch.delenv("VOCALNET_DEBUG", raising=False)
    result = vocalnet("recipes", "mtp5")
    lines = result.err.splitlines()
    assert result.code == code and len(lines) == 2 and problem in lines[0] and hint in lines[1]
    if name in ("disk", "defect", "saved"):
        for debugged in (vocalnet("--debug", "recipes", "mtp5"), vocalnet("recipes", "mtp5", "--debug")):
            assert debugged.code == code and "Traceback" in debugged.err and debugged.err.splitlines()[-2:] == lines


def test_a_reader_that_leaves_is_no_traceback():
    code = "import sys; from vocalnet_cli.cli.app import run_cli; sys.stdin.readline(); sys.exit(run_cli(['recipes', 'mtp5']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stderr.read() == "" and process.wait(60) == 1
    process.stderr.close()
