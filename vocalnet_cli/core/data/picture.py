"""Pictures as PNG files. Drawn without pyplot, which would want a display and keep every figure."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vocalnet_cli.core.errors import VocalnetError


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches. Raises VocalnetError where matplotlib is not installed."""
    try:
        figures = importlib.import_module("matplotlib.figure")
        canvases = importlib.import_module("matplotlib.backends.backend_agg")
    except ImportError as error:
        raise VocalnetError("matplotlib is not installed: no picture", "pip install 'vocalnet-cli[eval]'") from error
    figure = figures.Figure(figsize=(width, height), layout="constrained")
    canvases.FigureCanvasAgg(figure)
    return figure


def write_png(figure: Any, path: Path, dpi: int = 150) -> None:
    """Write a figure, whole or not at all. Raises VocalnetError if the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format="png", dpi=dpi)
        os.replace(temporary, path)
    except OSError as error:
        raise VocalnetError(f"cannot write {path}: {error.strerror}", "choose another folder or free some space") from error
    finally:
        temporary.unlink(missing_ok=True)
