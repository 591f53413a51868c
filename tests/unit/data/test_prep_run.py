"""Data preparation that is killed, split over jobs, processes or a Ray cluster leaves the same bytes as one straight run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.steps import Counting, Deadly
from vocalnet_cli.core.data.prep.rounds import Rounds
from vocalnet_cli.core.data.prep.run import Manner, run_step
from vocalnet_cli.core.data.prep.step import STATE
from vocalnet_cli.core.errors import UsageError, VocalnetError

ROOT = Path(__file__).parents[3]
CORPORA = ROOT / "tests" / "assets" / "corpora"
KILLS = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 dialogues: the real ones over and over under ids of their own, every ninth broken, every tenth a repetition."""
    dialogues = [json.loads(line) for line in (CORPORA / "ultrachat_rebuilt_from_slam.jsonl").read_text().splitlines()]
    path = tmp_path_factory.mktemp("source") / "dialogues.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(900):
            said = dialogues[number % len(dialogues)]["data"]
            mark = "" if number % 10 == 0 else f" ({number})"
            said = [text + mark for text in said]
            if number % 9 == 0:
                said = said[:-1]
            file.write(json.dumps({"id": str(number), "data": said}) + "\n")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Everything in a folder that a run must leave the same: all but the state and what tells how it went."""
    files = (path for path in folder.rglob("*") if path.is_file() and STATE not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "stats.json"}


@pytest.fixture(scope="module")
def straight(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("straight") / "out"
    stats = run_step(Rounds(), [str(source)], folder, Manner(workers=1, shard_rows=10_000))
    assert stats["rejected"]["question without an answer"] == 100 and stats["rejected"]["duplicate"] > 50
    return tree(folder)


def test_thirty_kills_change_nothing(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.killed", str(source), str(out), str(KILLS), "3"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    killed, finished = map(int, told.split())
    assert killed == KILLS and 20 < finished < 300
    stats = run_step(Rounds(), [str(source)], out, Manner(workers=1, shard_rows=3))
    assert tree(out) == straight
    assert stats["rows_kept"] == 3 * finished == 900 - sum(stats["rows_by_worker"].values())


def test_two_processes_share_the_work(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    stats = run_step(Rounds(), [str(source)], tmp_path / "out", Manner(workers=2, shard_rows=20))
    assert tree(tmp_path / "out") == straight
    assert len(stats["rows_by_worker"]) == 2 and min(stats["rows_by_worker"].values()) > 0
    assert sum(stats["rows_by_worker"].values()) == stats["rows_in"] == 900


def test_a_killed_worker_changes_nothing(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    step = Deadly(once=("7", "400", "401", "899"), marks=str(marks))
    run_step(step, [str(source)], tmp_path / "out", Manner(workers=2, shard_rows=100))
    assert len(list(marks.iterdir())) == 4
    assert tree(tmp_path / "out") == straight


def test_a_row_that_always_kills_is_rejected_and_no_other(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    step = Deadly(poison="415", marks=str(tmp_path))
    stats = run_step(step, [str(source)], tmp_path / "out", Manner(workers=2, shard_rows=300))
    assert stats["rejected"]["the program died on it"] == 1
    lost = set(straight["manifest.jsonl"].splitlines()) ^ set(tree(tmp_path / "out")["manifest.jsonl"].splitlines())
    assert lost and all(json.loads(line)["id"].startswith("415-") for line in lost)


def test_rows_are_worked_on_together_again_after_their_shard_killed_two_workers(tmp_path: Path) -> None:
    """Rows of a shard that are computed in one batch must not come out otherwise because workers died."""
    source, straight = tmp_path / "in.jsonl", tmp_path / "straight"
    source.write_text("".join(json.dumps({"id": str(n), "data": ["a", "b"]}) + "\n" for n in range(8)))
    for output, once in ((straight, ()), (tmp_path / "out", ("1", "2"))):
        (output.parent / f"{output.name}-marks").mkdir()
        step = Counting(once=once, marks=f"{output}-marks")
        run_step(step, [str(source)], output, Manner(workers=2, shard_rows=4))
    assert '"batch":4' in (straight / "manifest.jsonl").read_text()
    assert tree(tmp_path / "out") == tree(straight)


def test_rows_that_only_together_kill_are_kept_one_by_one(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    step = Deadly(crowd=20, marks=str(tmp_path))
    run_step(step, [str(source)], tmp_path / "out", Manner(workers=2, shard_rows=450))
    assert tree(tmp_path / "out") == straight


def test_parts_of_an_array_job_put_the_whole_together(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in (2, 1):
        stats = run_step(Rounds(), [str(source)], out, Manner(workers=1, shard_rows=50, part=(part, 3)))
        assert stats["unfinished"] and not (out / "manifest.jsonl").exists()
    run_step(Rounds(), [str(source)], out, Manner(workers=1, shard_rows=50, part=(3, 3)))
    assert tree(out) == straight


def test_ray_equals_local(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    stats = run_step(Rounds(), [str(source)], tmp_path / "out", Manner(workers=2, shard_rows=100, engine="ray"))
    assert tree(tmp_path / "out") == straight
    assert sum(stats["rows_by_worker"].values()) == 900 and min(stats["rows_by_worker"].values()) > 0


def test_other_settings_and_a_changed_input_are_worked_on_again(source: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine.jsonl"
    lines = source.read_text().splitlines(keepends=True)
    mine.write_text("".join(lines[:40]))
    manner = Manner(workers=1, shard_rows=10)
    assert run_step(Rounds(), [str(mine)], out, manner)["rows_kept"] == 0
    mine.write_text("".join([*lines[:35], lines[36], *lines[36:60]]))
    assert run_step(Rounds(), [str(mine)], out, manner)["rows_kept"] == 30
    assert run_step(Rounds("first"), [str(mine)], out, manner)["rows_kept"] == 0
    mine.write_text("".join(lines[:10]))
    run_step(Rounds("first"), [str(mine)], out, manner)
    assert len(list((out / STATE).glob("*.tsv"))) == 1


def test_a_limit_counts_rows_and_what_it_left_is_done_later(source: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    manner = Manner(workers=1, shard_rows=50)
    stats = run_step(Rounds(), [str(source)], tmp_path / "out", replace(manner, limit=120))
    assert stats["rows_in"] == 120
    assert run_step(Rounds(), [str(source)], tmp_path / "out", manner)["rows_kept"] == 100
    assert tree(tmp_path / "out") == straight


@pytest.mark.parametrize(
    ("content", "told"),
    [(b'[{"id": "1", "data": ["a", "b"]}, {"id": "2"', "not a whole JSON array"), (b"PAR1 and no more", "not a whole parquet file")],
)
def test_an_input_that_cannot_be_cut_is_two_lines(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "in.json").write_bytes(content)
    with pytest.raises(VocalnetError, match=told):
        run_step(Rounds(), [str(tmp_path / "in.json")], tmp_path / "out")


def test_a_row_of_absurd_length_is_not_parsed(tmp_path: Path) -> None:
    with (tmp_path / "in.jsonl").open("w") as file:
        file.write(json.dumps({"id": "1", "data": ["a", "b" * (17 << 20)]}) + "\n" + json.dumps({"id": "2", "data": ["a", "b"]}))
    stats = run_step(Rounds(), [str(tmp_path / "in.jsonl")], tmp_path / "out")
    assert (stats["rows_out"], stats["rejected"]) == (1, {"not a JSON row": 1})


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda path: run_step(Rounds(), [str(path / "in.jsonl")], path), "the input lies in it"),
        (lambda path: run_step(Rounds(), [str(path / "none")], path / "out"), "no such file or folder"),
        (lambda path: run_step(Rounds(), [str(path / "in.jsonl")], path / "out", Manner(engine="spark")), "no such engine"),
    ],
)
def test_wrong_use_is_two_lines(tmp_path: Path, use: Callable[[Path], object], told: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": "1", "data": ["a", "b"]}')
    with pytest.raises(UsageError, match=told):
        use(tmp_path)
