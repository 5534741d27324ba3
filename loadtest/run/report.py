"""A run's report as files: the page, its pictures, and the figures that both are made of. Needs the `train` extra."""

from pathlib import Path

from loadtest.run.outcome import Outcome, json_of
from loadtest.run.page import page
from loadtest.run.plots import plots


def write_report(outcome: Outcome, folder: Path) -> None:
    """report.json, report.html and a PNG for each picture."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = plots(outcome)
    (folder / "report.json").write_bytes(json_of(outcome))
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    (folder / "report.html").write_text(page(outcome, pictures), "utf-8")
