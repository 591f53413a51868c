"""The card beside a finished model: what it is, what it was trained on, how its loss went."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vocalnet_cli.core.config.load import LoadedRecipe
from vocalnet_cli.core.data.picture import can_draw, new_figure, write_png
from vocalnet_cli.core.data.record import write_text_atomically
from vocalnet_cli.core.training.run_log import read_metrics

CARD, CURVE = "README.md", "curve.png"


def write_card(loaded: LoadedRecipe, folder: Path, told: list[str], left_out: int) -> None:
    """Write README.md into `folder`/model, and where matplotlib is installed the curve of the losses beside it.

    `told` is what the run printed before it began: rows and parameters.
    """
    recipe, model = loaded.recipe, folder / "model"
    metrics = read_metrics(folder / "metrics.jsonl")
    drawn = _draw(metrics, model / CURVE)
    last = {name: line[name] for line in metrics for name in ("loss", "dev_loss") if name in line}
    made = json.loads((folder / "origin.json").read_text(encoding="utf-8"))
    manifest = Path(recipe.data.manifest)
    if recipe.data.recordings:
        data = f"the recordings in `{recipe.data.recordings}`"
    else:
        data = f"`{manifest}`, sha256 {hashlib.sha256(manifest.read_bytes()).hexdigest()}"
    lines = [
        f"# {loaded.name}",
        "",
        recipe.about,
        "",
        f"- Stage: `{recipe.stage}`, {recipe.train.steps} steps, seed {recipe.train.seed}",
        *([f"- Stands for: arXiv {recipe.paper.arxiv}, table {recipe.paper.table}, {recipe.paper.row}"] if recipe.paper else []),
        *(f"- Starts its {part} from: {where}" for part, where in recipe.init.items()),
        f"- Data: {data}; {left_out} rows were too long",
        *(f"- Last {name.replace('_', ' ')}: {value}" for name, value in last.items()),
        f"- Made with: vocalnet {made['vocalnet']} ({made['git']}), "
        + ", ".join(f"{name} {number}" for name, number in made["packages"].items()),
        "",
        "Parameters:",
        "",
        "```text",
        *told,
        "```",
        *(["", f"![losses]({CURVE})"] if drawn else []),
    ]
    write_text_atomically(model / CARD, "\n".join(lines) + "\n")


def _draw(metrics: list[dict[str, float]], path: Path) -> bool:
    """The losses over the steps as a PNG; false where nothing can be drawn."""
    if not metrics or not can_draw():
        return False
    figure = new_figure(8, 4)
    panel = figure.subplots()
    for name, label in (("loss", "training"), ("dev_loss", "dev")):
        points = [(line["step"], line[name]) for line in metrics if name in line]
        if points:
            panel.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) < 20 else None)
    panel.set(xlabel="step", ylabel="loss")
    panel.legend()
    write_png(figure, path, dpi=120)
    return True
