"""The files of a report: figures as JSON, pictures, and one page that has everything. Needs the `train` extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from loadtest.errors import LoadTestError
from loadtest.run.page import capacity_page, run_page
from loadtest.run.plots import plot_capacity, plots

JSON_FILE, PAGE_FILE = "report.json", "report.html"


def write_report(folder: Path, figures: dict[str, Any]) -> None:
    """Writes that of a run; LoadTestError where that does not go."""
    pictures = plots(figures)
    _write(folder, figures, run_page(figures, pictures), pictures)


def write_capacity_report(folder: Path, figures: dict[str, Any]) -> None:
    """Writes that of a search for capacity; LoadTestError where that does not go."""
    pictures = {"capacity.png": plot_capacity(figures)}
    _write(folder, figures, capacity_page(figures, pictures), pictures)


def _write(folder: Path, figures: dict[str, Any], page: str, pictures: Mapping[str, bytes]) -> None:
    contents = {
        **pictures,
        JSON_FILE: orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        PAGE_FILE: page.encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise LoadTestError(f"--report {folder} cannot be written: {error.strerror}") from error
