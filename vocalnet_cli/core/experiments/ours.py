"""Figures of ours out of the files that `recipes run`, `eval -o` and `latency -o` leave, under the names the papers' tables have."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vocalnet_cli.core.config.load import load_recipe
from vocalnet_cli.core.config.papers import VOCALNET_MDM, Twin
from vocalnet_cli.core.config.schema import PaperRow
from vocalnet_cli.core.errors import VocalnetError
from vocalnet_cli.core.evaluation.results import REPORT, RunReport
from vocalnet_cli.core.experiments.places import CELL_FILE, RESULTS_FILE

LATENCY_FILE = "latency.json"
STEPS_FOLDER = "steps-"
"""`eval --steps` writes a folder of this name for each number of passes."""

SUBSETS = ("alpaca_eval", "llama_questions", "trivia_qa", "web_questions")
"""OpenAudioBench's subsets the papers ask."""

_PLAIN = {"wer": "wer_percent", "utmos": "utmos", "dnsmos": "dnsmos", "truncated": "truncated_percent"}
_KINDS = {"sub": "sub_percent", "ins": "ins_percent", "del": "del_percent"}
_WEIGHTED = {*_PLAIN.values(), *_KINDS.values()}
"""Averaged over questions, as in the papers; scores are averaged over sets."""
_ROUNDED = 4


@dataclass(frozen=True)
class Made:
    """What made the figures of a row."""

    source: str
    """File they stand in."""
    recipe: str | None = None
    weights: tuple[str, ...] = ()
    """SHA-256 of the weights, one a run."""
    judges: tuple[str, ...] = ()
    """Who judged, on which scale and by which prompt; one a set that differs."""
    recogniser: str | None = None
    normaliser: str | None = None
    questions: tuple[str, ...] = ()
    """Sets, each with the number of its questions."""
    unjudged: int = 0
    """Verdicts that could not be had, and so do not count."""
    machine: str | None = None
    """What times were measured on."""
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""


@dataclass(frozen=True)
class OurRow:
    """A row that was measured here."""

    label: str
    paper: PaperRow | None
    """The row it stands for."""
    steps: int | None
    """Passes a block of a masked-diffusion talker."""
    figures: dict[str, float]
    """By column, METRIC or METRIC@SUBSET."""
    std: dict[str, float]
    """Sample deviations over the seeds; empty for one run."""
    runs: int
    made: Made

    def stands_at(self, arxiv: str, table: str, place: int | None, twin: Twin | None) -> bool:
        """Whether it stands at a place of a table, or at the place the table's row has elsewhere."""
        if self.paper is None or self.paper.arxiv != arxiv or self.paper.place is None:
            return False
        own = (self.paper.table, self.paper.place)
        return own == (table, place) or (twin is not None and own == (twin.table, twin.place))


def read_ours(path: Path) -> list[OurRow]:
    """The rows of a results folder, or of one of its files: those of `recipes run`, `eval -o` (with --steps too) or `latency -o`.

    Raises VocalnetError for a path that holds none of them, or a file that cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    names = [RESULTS_FILE, REPORT, LATENCY_FILE] if path.is_dir() else [path.name]
    found: list[OurRow] = []
    if RESULTS_FILE in names and (folder / RESULTS_FILE).is_file():
        found += _of_table(folder)
    if REPORT in names and (folder / REPORT).is_file():
        found.append(_of_report(folder / REPORT))
    if path.is_dir():
        found += [_of_report(one) for one in sorted(folder.glob(f"{STEPS_FOLDER}*/{REPORT}"))]
    if LATENCY_FILE in names and (folder / LATENCY_FILE).is_file():
        found.append(_of_latency(folder / LATENCY_FILE))
    if not found:
        raise VocalnetError(
            f"{path}: holds no results ({RESULTS_FILE}, {REPORT} or {LATENCY_FILE})",
            "Name a folder of `vocalnet recipes run`, `vocalnet eval -o` or `vocalnet latency -o`.",
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise VocalnetError(f"{path}: cannot be read ({reason})", "Run the command that wrote it again.") from error
    if not isinstance(facts, dict):
        raise VocalnetError(f"{path}: not an object", "Run the command that wrote it again.")
    return facts


def _paper_of(recipe: str | None) -> PaperRow | None:
    """The row a recipe of the toolkit stands for; none for a recipe that is not there any more."""
    try:
        return load_recipe(recipe).recipe.paper if recipe else None
    except VocalnetError:
        return None


def _of_table(folder: Path) -> list[OurRow]:
    """The rows of a results.json; what each run found comes from its cell.json, where that still lies beside it."""
    results = _json(folder / RESULTS_FILE)
    rows = []
    try:
        for name, row in results["rows"].items():
            if not row["runs"]:
                continue
            cells = [folder / name / f"seed-{run['seed']}" / CELL_FILE for run in row["runs"]]
            reports = [_report(_json(cell).get("scores"), cell) for cell in cells if cell.is_file()]
            made = Made(str(folder / RESULTS_FILE), row["recipe"], versions=results.get("versions", {}), date=results.get("date", ""))
            figures = [figures_of(one) for one in reports]
            if len(reports) == len(cells):
                made = _made(reports, str(folder / RESULTS_FILE), row["recipe"])
            else:
                renamed = {"wer": "wer_percent", "s2t": "s2t_percent", "s2s": "s2s_percent", "truncated": "truncated_percent"}
                figures = [{renamed[key]: value for key, value in run.items() if key in renamed} for run in row["runs"]]
            rows.append(OurRow(name, _paper_of(row["recipe"]), None, _means(figures), _deviations(figures), len(figures), made))
    except (KeyError, TypeError, AttributeError) as error:
        raise VocalnetError(f"{folder / RESULTS_FILE}: no such results ({error})", "Run `vocalnet recipes run` again.") from error
    return rows


def _report(facts: Any, path: Path) -> RunReport:
    try:
        return RunReport.model_validate(facts)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise VocalnetError(f"{path}: {place}: {wrong['msg']}", "Measure again.") from error


def _of_report(path: Path) -> OurRow:
    report = _report(_json(path), path)
    paper = _paper_of(report.recipe)
    told = path.parent.name.startswith(STEPS_FOLDER) or _is_mdm(paper)
    label, steps = _label(report.recipe or report.model, report.settings.get("steps") if told else None)
    return OurRow(label, paper, steps, figures_of(report), {}, 1, _made([report], str(path), report.recipe))


def _is_mdm(paper: PaperRow | None) -> bool:
    return paper is not None and paper.arxiv == VOCALNET_MDM


def _label(name: str, steps: Any) -> tuple[str, int | None]:
    """What a row is called, and its passes a block where they are counted (not `auto`)."""
    return (name if steps is None else f"{name}, {steps} steps"), steps if isinstance(steps, int) else None


def figures_of(report: RunReport) -> dict[str, float]:
    """What a measurement found, by column; the averages as the papers have them (scores over sets, rates over questions)."""
    found: dict[str, dict[str, float]] = {}
    weights: dict[str, int] = {}
    for name, scores in report.benchmarks.items():
        told = {column: scores[key] for key, column in _PLAIN.items() if isinstance(scores.get(key), (int, float))}
        told |= {column: scores["wer_kinds"][key] for key, column in _KINDS.items() if key in scores.get("wer_kinds", {})}
        told |= {f"{side}_score": value for side, value in scores.get("score", {}).items()}
        told |= {f"{side}_percent": value for side, value in scores.get("accuracy", {}).items()}
        found[name], weights[name] = told, scores.get("n", 0)
    figures = {f"{metric}@{subset_of(name)}": value for name, told in found.items() for metric, value in told.items()}
    for metric in {metric for told in found.values() for metric in told}:
        if all(metric in told for told in found.values()):
            counts = [weights[name] if metric in _WEIGHTED else 1 for name in found]
            total = sum(told[metric] * count for told, count in zip(found.values(), counts, strict=True))
            figures[metric] = round(total / sum(counts), _ROUNDED) if sum(counts) else float("nan")
    return figures


def subset_of(benchmark: str) -> str:
    """The papers' name of a set: `openaudiobench-alpaca_eval` and `llama-questions` are subsets of OpenAudioBench, others keep theirs."""
    plain = benchmark.lower().replace("-", "_").replace("/", "_").replace(" ", "_")
    return next((subset for subset in SUBSETS if plain == subset or plain.endswith(f"_{subset}")), benchmark)


def _made(reports: Sequence[RunReport], source: str, recipe: str | None) -> Made:
    first = reports[0]
    judges = dict.fromkeys(judge for report in reports for judge in _judges(report))
    return Made(
        source,
        recipe,
        tuple(report.weights_sha256 or "" for report in reports),
        tuple(judges),
        "; ".join(dict.fromkeys(report.recogniser for report in reports)),
        "; ".join(dict.fromkeys(report.normaliser for report in reports)),
        tuple(f"{name} ({scores.get('n', 0)})" for name, scores in first.benchmarks.items()),
        sum(sum(scores.get("unjudged", {}).values()) for report in reports for scores in report.benchmarks.values()),
        None,
        first.versions,
        max(report.date for report in reports),
    )


def _judges(report: RunReport) -> list[str]:
    """Each way of judging of a report in words."""
    told = []
    for judging in report.judging.values():
        by = f"prompt {judging.prompt} {(judging.prompt_sha256 or '')[:12]}" if judging.prompt else judging.rule or "its rule"
        told.append(f"{judging.judge}, {judging.scale}, {by}")
    return told or [report.judge]


def _of_latency(path: Path) -> OurRow:
    result = _json(path)
    try:
        figures = {f"{name}_ms": times["p50"] for name, times in result["stages_ms"].items()}
        if "first_audio_ms" in result:
            figures["first_audio_ms"] = result["first_audio_ms"]["p50"]
        figures |= {name: result[name] for name in ("tokens_per_s", "rtf") if name in result}
        threads = f", {result['threads']} threads" if result["device"] == "cpu" else ""
        load = f", load {result['load_1m']:g}" if "load_1m" in result else ""
        machine = f"{result.get('device_name', result['device'])}, {result['dtype']}{threads}{load}"
        questions = (f"{result['questions']} questions, p50 of {result['n']} answers",)
        versions, date, recipe = result["versions"], result["date"], result["recipe"]
        told = result["settings"].get("steps")
    except (KeyError, TypeError, AttributeError) as error:
        raise VocalnetError(f"{path}: no result of `vocalnet latency` ({error})", "Measure again: vocalnet latency -o DIR.") from error
    try:
        paper = PaperRow.model_validate(result["stands_for"]) if result.get("stands_for") else _paper_of(recipe)
    except ValidationError as error:
        raise VocalnetError(f"{path}: stands_for: no row of a paper", "Measure again: vocalnet latency -o DIR.") from error
    label, steps = _label(str(result["model"]), told if _is_mdm(paper) else None)
    made = Made(str(path), recipe, questions=questions, machine=machine, versions=versions, date=date)
    return OurRow(label, paper, steps, figures, {}, 1, made)


def _means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: round(statistics.fmean(run[name] for run in runs), _ROUNDED) for name in names}


def _deviations(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(runs) < 2:
        return {}
    return {name: round(statistics.stdev(run[name] for run in runs), _ROUNDED) for name in runs[0] if all(name in run for run in runs)}
