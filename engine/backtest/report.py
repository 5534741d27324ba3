"""The files of a backtest: figures as JSON, pictures, and one page that has everything."""

from pathlib import Path

import msgspec
import orjson

from engine.backtest.columns import Decided
from engine.backtest.page import page
from engine.backtest.plots import plots
from engine.backtest.result import Backtest
from engine.errors import ConfigError

JSON_FILE, PAGE_FILE = "report.json", "report.html"


def make_folder(folder: Path) -> None:
    """ConfigError where that does not go: better before the events are read than after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_report(folder: Path, result: Backtest, decided: Decided) -> None:
    """Writes `report.json`, the pictures and `report.html`; ConfigError where that does not go."""
    pictures = plots(result, decided)
    contents = {
        **pictures,
        JSON_FILE: orjson.dumps(msgspec.to_builtins(result), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        PAGE_FILE: page(result, pictures).encode(),
    }
    try:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--out {folder} cannot be written: {error.strerror}")
