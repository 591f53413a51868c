"""The shape of the code: imports point one way, files and functions stay small, and `--help` is quick because it loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vocalnet_cli"
FILES = sorted(PACKAGE.rglob("*.py"))

RANKS = {
    "errors": 0, "units": 0, "config": 1, "audio": 1, "model": 2, "data": 3, "training": 4, "generation": 4,
    "evaluation": 5, "latency": 5, "conversation": 5, "doctor": 5, "experiments": 6, "serving": 6, "cli": 7,
}  # fmt: skip
"""A package may import those of a lower rank, and itself. `errors` and `units` import nothing."""

LONGEST_FILE, LONGEST_FUNCTION = 400, 60
HEAVY = {"torch", "numpy", "transformers", "peft", "accelerate", "soundfile", "jiwer", "huggingface_hub", "matplotlib"}


def layer(module: str) -> str | None:
    """`vocalnet_cli.core.model.talker` is of layer `model`."""
    parts = module.split(".")
    if parts[0] != "vocalnet_cli" or len(parts) < 2 or parts[1].startswith("__"):
        return None
    return parts[2] if parts[1] == "core" and len(parts) > 2 else parts[1]


def imports(path: Path) -> set[str]:
    """Modules a file imports anywhere in it, in full."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are written in full"
            # The name may be a module too: `from vocalnet_cli.core import units`.
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_imports_point_one_way():
    wrong = []
    edges = 0
    for path in FILES:
        own = layer(module_of(path))
        if own not in RANKS:
            continue  # the package's own __init__ and __main__
        for module in imports(path):
            other = layer(module)
            if other is None or other == own:
                continue
            edges += 1
            if other not in RANKS or RANKS[other] >= RANKS[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert edges > 50, "hardly an import was seen: the test tests nothing"
    assert not wrong, "\n".join(wrong)


def test_every_package_has_a_rank():
    found = {path.name.removesuffix(".py") for path in (PACKAGE / "core").iterdir() if path.name != "__init__.py" and path.name[0] != "_"}
    assert found <= RANKS.keys()


def test_core_works_without_the_command_line():
    names = {name.split(".")[0] for path in (PACKAGE / "core").rglob("*.py") for name in imports(path)}
    assert "typer" not in names and "torch" in names


def test_files_and_functions_are_small():
    too_long = []
    for path in FILES:
        text = path.read_text()
        if text.count("\n") > LONGEST_FILE:
            too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    too_long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not too_long, "\n".join(too_long)


def run_help(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vocalnet_cli", *args, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_is_quick():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = run_help()
        times.append(time.perf_counter() - start)
        assert result.returncode == 0 and result.stdout.startswith("Usage: vocalnet")
    assert min(times) < 0.5, times


@pytest.mark.parametrize(
    "command",
    [
        "",
        "train",
        "infer",
        "chat",
        "chat file",
        "chat mic",
        "eval",
        "eval speech",
        "eval report",
        "eval table",
        "eval figure",
        "prep",
        "recipes",
        "recipes run",
        "latency",
        "latency talker",
        "models",
        "doctor",
    ],
)
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys\n"
        "from vocalnet_cli.cli.app import run_cli\n"
        f"code = run_cli([*{command.split()}, '--help'])\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))\n"
        "sys.exit(code)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.rpartition("loaded:")[2].split())
    assert "typer" in loaded
    assert not loaded & HEAVY
