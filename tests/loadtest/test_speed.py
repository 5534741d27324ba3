"""`python -m loadtest speed`."""

import json

import pytest
from click.testing import CliRunner

from loadtest.__main__ import main


def test_what_is_made_and_rendered_takes_both_times() -> None:
    done = CliRunner().invoke(main, ["speed", "--events", "20000"])
    found = json.loads(done.stdout)
    assert found["events"] == 20_000
    both_s = 1 / found["made_per_second"] + 1 / found["rendered_per_second"]
    assert 1 / found["events_per_second"] == pytest.approx(both_s, rel=1e-3)
