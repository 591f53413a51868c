"""Recipes: parents, overrides, and every mistake at once with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vocalnet_cli.core.config.find import find_recipe, list_recipes
from vocalnet_cli.core.config.load import load_recipe, save_resolved
from vocalnet_cli.core.errors import RecipeError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a recipe into the working directory and returns its name there."""
    monkeypatch.chdir(tmp_path)

    def put(text: str | bytes, name: str = "mine.yaml") -> str:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return put


def mistakes(name: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, list(overrides))
    assert caught.value.hint and "\n" not in caught.value.hint
    return caught.value.problem.splitlines()


def test_short_name_family_name_and_file_find_the_same_recipe():
    assert load_recipe("mtp5").name == load_recipe("vocalnet/mtp5").name == "vocalnet/mtp5"
    assert load_recipe(str(find_recipe("mtp5"))).name == "vocalnet/mtp5"
    assert load_recipe("nano/mtp5").name == "nano/mtp5"
    assert {recipe.family for recipe in list_recipes()} <= {"vocalnet", "vocalnet-mdm", "nano", "vocoder"}


def test_unknown_name_tells_the_nearest():
    (line,) = mistakes("vocalnet/mpt5")
    assert "vocalnet/mpt5" in line and "vocalnet/mtp5" in line
    assert "no such file" in mistakes("mtp5.yaml")[0]
    for name in ("../nano/lm", "\0", "x" * 5000, "", "nano"):
        assert len(mistakes(name)) == 1


def test_child_is_merged_over_its_parents(write):
    write("model: {encoder: {layers: 3, heads: 4, hidden: 8}}\ntrain: {steps: 7, lr: 1e-4}\n", "grand.yaml")
    write("extends: grand.yaml\ntrain: {steps: 8}\ntried: [a, b]\n", "parent.yaml")
    recipe = load_recipe(write("extends: parent.yaml\nmodel: {encoder: {layers: 2}}\ntried: [c]\n"), ["train.lr=2e-3"]).recipe
    assert (recipe.model.encoder.layers, recipe.model.encoder.heads, recipe.train.steps) == (2, 4, 8)
    assert recipe.train.lr == 2e-3 and recipe.tried == ["c"]


def test_extends_is_relative_to_the_file_not_the_working_directory(write, tmp_path, monkeypatch):
    write("train: {steps: 7}\n", "parent.yaml")
    child = tmp_path / write("extends: parent.yaml\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_recipe(str(child)).recipe.train.steps == 7


def test_another_talker_leaves_the_parents_own_keys_behind(write):
    name = write("extends: nano/mtp5\nmodel: {talker: {kind: ntp}}\ngeneration: {tokens_per_step: 1}\n")
    talker = load_recipe(name).recipe.model.talker
    assert talker.kind == "ntp" and talker.codes == load_recipe("nano/mtp5").recipe.model.talker.codes
    assert load_recipe("nano/mtp5", ["model.talker.kind=ntp", "generation.tokens_per_step=1"]).recipe.model.talker.kind == "ntp"
    (line,) = mistakes(write("extends: nano/mtp5\nmodel:\n  talker:\n    kind: ntp\n    modules: 2\ngeneration: {tokens_per_step: 1}\n"))
    assert line.startswith("mine.yaml:5  model.talker.modules is 2") and "mtp-vocalnet" in line


def test_all_mistakes_are_told_at_once_each_with_its_line(write):
    name = write(
        "extends: nano/mtp5\n"
        "stage: speek\n"
        "lr: 3\n"
        "model:\n"
        "  thinker: {hiden: 64}\n"
        "  talker: {modules: 0}\n"
        "train:\n"
        "  steps: ten\n"
        "  warmup: 1.5\n"
        "  warmup: 0.1\n"
        "  batch_size: true\n"
        "init: {thinkr: a}\n"
        "paper: {table: 5}\n"
    )
    told = mistakes(name, "train.dtyp=bf16", "generation.top_p=2", "nonsense")
    expected = {
        "mine.yaml:2  stage is": ["speek", "Nearest: speak"],
        "mine.yaml:3  lr is 3": ["unknown key", "train.lr"],
        "mine.yaml:5  model.thinker.hiden is 64": ["Nearest: model.thinker.hidden"],
        "mine.yaml:6  model.talker.modules is 0": ["greater than or equal to 1"],
        "mine.yaml:8  train.steps is": ["ten", "integer"],
        "mine.yaml:9  train.warmup is 1.5": ["less than 1"],
        "mine.yaml:10  train.warmup is given twice": ["mine.yaml:9"],
        "mine.yaml:11  train.batch_size is true": ["integer"],
        "mine.yaml:12  init.thinkr is": ["Nearest: init.thinker"],
        "mine.yaml:13  paper.table is 5": ["string"],
        "--set train.dtyp=bf16  train.dtyp is": ["Nearest: train.dtype"],
        "--set generation.top_p=2  generation.top_p is 2": ["less than or equal to 1"],
        "--set nonsense": ["KEY=VALUE"],
    }
    for start, parts in expected.items():
        lines = [line for line in told if line.startswith(start)]
        assert len(lines) == 1 and all(part in lines[0] for part in parts), (start, told)
    assert len(told) == len(expected)


def test_a_mistake_in_a_parent_names_the_parents_line(write):
    write("# a comment\ntrain: {steps: -1}\n", "parent.yaml")
    assert mistakes(write("extends: parent.yaml\n"))[0].startswith("parent.yaml:2  train.steps is -1")
    write("train: [\n", "parent.yaml")
    assert mistakes(write("extends: parent.yaml\n"))[0].startswith("parent.yaml:")


def test_sections_that_do_not_fit_are_told_besides_unknown_keys():
    told = mistakes("nano/mtp5", "model.talker.codes=7", "train.stepps=1")
    assert any(line.startswith("--set model.talker.codes=7  ") and "vocoder.codes" in line for line in told)
    assert any("train.steps" in line for line in told) and len(told) == 2
    (line,) = mistakes("nano/mtp5", "generation.tokens_per_step=9")
    assert line.startswith("--set generation.tokens_per_step=9  generation.tokens_per_step is 9: at most")


def test_tokens_a_step_are_those_the_talker_can_draw(write):
    for kind, refused, rule in (
        ("ntp", 3, "always 1"),
        ("group-linear", 5, "always 3, as model.talker.group"),
        ("mtp-deepseek", 7, "at most 6"),
    ):
        other = f"model.talker.kind={kind}"
        (line,) = mistakes("nano/mtp5", other, f"generation.tokens_per_step={refused}")
        assert line.startswith(f"--set generation.tokens_per_step={refused}  generation.tokens_per_step is {refused}: {rule}")
    (line,) = mistakes(write("extends: nano/mtp5\nmodel:\n  talker:\n    kind: group-trans\n    group: 5\n"))
    assert "generation.tokens_per_step is 3: always 5" in line
    loaded = load_recipe("nano/mtp5", ["model.talker.kind=group-trans", "model.talker.group=5", "generation.tokens_per_step=5"])
    assert loaded.recipe.model.talker.step_sizes == range(5, 6)


def test_talkers_the_released_code_has_not_follow_none_of_its_habits():
    (line,) = mistakes("nano/mtp5", "model.talker.kind=group-linear", "model.compat=released")
    assert line.startswith("--set model.") and "model.compat is released" in line and "group-linear" in line
    (line,) = mistakes("nano/mtp5", "model.compat=released")  # nano's talker reads tokens too
    assert "model.compat is released" in line and "talker.reads_tokens" in line
    plain = ["model.compat=released", "model.talker.reads_tokens=false"]
    assert load_recipe("nano/mtp5", plain).recipe.model.compat == "released"


def test_talker_kind_missing_or_misspelt(write):
    assert "Nearest: mtp-vocalnet" in mistakes("nano/mtp5", "model.talker.kind=mtp-vocalnt")[0]
    (line,) = mistakes(write("model:\n  talker: {modules: 2}\n"))
    assert line.startswith("mine.yaml:2  model.talker.kind is missing") and "ntp" in line


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ("mine.yaml", "circle"),
        ("other.yaml", "circle"),
        ("nano/mpt5", "Nearest: nano/mtp5"),
        ("none.yaml", "no such file"),
        ("[a, b]", "one recipe"),
    ],
)
def test_parents_that_cannot_be(write, parent, reason):
    write("extends: mine.yaml\n", "other.yaml")
    (line,) = mistakes(write(f"about: x\nextends: {parent}\n"))
    assert reason in line and ("mine.yaml:2" in line or parent == "other.yaml")


BROKEN = {
    "empty": (b"", "empty"),
    "comment": (b"# nothing\n", "empty"),
    "list": (b"- a\n", "not a mapping"),
    "text": (b"hello\n", "not a mapping"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "UTF-8"),
    "null": (b"about: a\x00b\n", "not YAML"),
    "unclosed": (b"about: a\ntrain: {steps: 1\n", "mine.yaml:3"),
    "tab": (b"train:\n\tsteps: 1\n", "mine.yaml:2"),
    "deep": (b"about: " + b"[" * 3000, "nested"),
    "deep mapping": (b"model: {thinker: {rope_scaling: " + b"{a: " * 40 + b"1" + b"}" * 42, "nested"),
    "two documents": (b"about: a\n---\nabout: b\n", "mine.yaml:2"),
    "bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "alias"),
    "recursion": (b"tried: &a [*a]\n", "alias"),
    "python": (b"about: !!python/object/apply:os.system [ls]\n", "type"),
    "date": (b"about: 2026-01-01\n", "timestamp"),
    "bad date": (b"about: 2026-99-99\n", "timestamp"),
    "not a number": (b"train: {lr: .nan}\n", "finite"),
    "endless": (b"train: {lr: 1e999}\n", "finite"),
    "huge": (b"train: {steps: " + b"9" * 5000 + b"}\n", "mine.yaml:1"),
    "number as key": (b"train: {5: 1}\n", "not text"),
    "mapping as key": (b"? {a: b}\n: c\n", "not text"),
    "surrogate": (b'about: "\\ud800"\n', "surrogate"),
    "escape": (b'about: "\\UFFFFFFFF"\n', "not YAML"),
    "tagged": (b"train: {steps: !!int ''}\n", "not a int"),
    "too large": (b"# " + b"x" * 1_000_001, "larger"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told_with_a_line(write, name):
    text, reason = BROKEN[name]
    told = mistakes(write(text))
    assert any(reason in line for line in told), told
    assert all(line.startswith("mine.yaml") and len(line) < 300 for line in told)


def test_a_folder_named_like_a_recipe(write, tmp_path):
    write(b"")
    (tmp_path / "folder.yaml").mkdir()
    assert "no such file" in mistakes("folder.yaml")[0]


def test_numbers_as_people_write_them(write):
    recipe = load_recipe(write("train: {lr: 1e-4, clip: 2, weight_decay: 1.5E-2, warmup: 0}\nabout: 1e-4 or so\n")).recipe
    assert (recipe.train.lr, recipe.train.clip, recipe.train.weight_decay, recipe.train.warmup) == (1e-4, 2.0, 0.015, 0.0)


@pytest.mark.parametrize(
    "override", ["a=", "=1", "train..lr=1", "train.lr=[", "train.lr=*x", "train=3", "about.x=1", ".".join("a" * 5000) + "=1"]
)
def test_bad_overrides_name_the_option(override):
    told = mistakes("nano/mtp5", override)
    assert all(line.startswith("--set ") for line in told)


def test_what_is_saved_loads_on_its_own_and_says_the_same(tmp_path):
    loaded = load_recipe("nano/ntp", ["train.lr=3e-5", "about=déjà vu"])
    path = save_resolved(loaded, tmp_path / "run")
    again = load_recipe(str(path))
    assert again.recipe == loaded.recipe and again.recipe.train.lr == 3e-5 and again.recipe.about == "déjà vu"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == loaded.resolved
    assert [file.name for file in path.parent.iterdir()] == ["recipe.yaml"], "no temporary file is left"
