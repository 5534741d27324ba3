"""`[control]` is refused where it cannot be, with the key and what is allowed."""

from pathlib import Path

import pytest

from engine.config import parse_config
from engine.errors import ConfigError


def control_of(text: str) -> str:
    """What a configuration with this says of itself, or why it is refused."""
    try:
        parse_config(text, Path(), {})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[control]\nlisten = "127.0.0.1"', "HOST:PORT"),
        ('[control]\nlisten = "127.0.0.1:0"', "port within 1"),
        ("[control]\npartitions = 0", "at least 1"),
        ("[control]\nother = 1", "other"),
        ('[control.quality]\nwindow = "month"', "window"),
        ('[control.quality]\nwindow = "30d"\nkeep = "1d"', "keep"),
        ("[control.quality]\nrecall_min = 1.5", "recall_min"),
        ("[control.quality]\ncards = 0", "cards"),
        ("[control.drift]\nwindows = []", "windows"),
        ('[control.drift]\nwindows = ["15s"]', "multiple of bucket"),
        ('[control.drift]\nwindows = ["10d"]', "at most 2880"),
        ('[control.drift]\nwindows = ["soon"]', "windows"),
        ("[control.drift]\npsi_max = 0.0", "psi_max"),
        ("[control.drift]\nraise_after = 0", "raise_after"),
        ('[control.cases]\nwindow = "0d"', "window"),
        ("[control.cases]\nalerts_max = 0", "alerts_max"),
        ('[control.retraining]\nafter = "never"', "after"),
        ('[kafka.topics]\nlabels = "cases"', "named twice"),
    ],
)
def test_what_cannot_be_is_refused(text: str, complaint: str) -> None:
    assert complaint in control_of(text)


def test_it_can_be_set_by_environment() -> None:
    config = parse_config("", Path(), {"TIDEGATE__CONTROL__DRIFT__PSI_MAX": "0.1"})
    assert config.control.drift.psi_max == 0.1
    assert config.control.address == ("127.0.0.1", 9465)
