"""Profiles of loads: those that ship, and what is refused in a file of one's own."""

from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.run.profile import parse_load_profile, profile_names, read_load_profile

PLAN = "plan = [{ seconds = 10.0, rate = 100.0 }]\n"


def test_those_that_ship_can_be_read() -> None:
    assert profile_names() == ["burst", "diurnal", "ramp", "smoke", "soak", "steady"]
    profiles = {name: read_load_profile(name) for name in profile_names()}
    smoke = profiles["smoke"]
    assert (smoke.plan.seconds - smoke.warm_up_s, smoke.plan.mean_rate) == (60.0, 10_000.0)
    assert profiles["soak"].plan.seconds - profiles["soak"].warm_up_s == 1_800
    assert profiles["burst"].plan.rate_at(75) == 3 * profiles["burst"].plan.rate_at(30)


def test_a_file_has_the_same_form(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(PLAN + 'delivery = "exactly_once"\n[traffic]\ncard_exponent = 1.1\n')
    profile = read_load_profile(str(file))
    assert (profile.delivery, profile.traffic.card_exponent, profile.traffic.events_per_second) == (
        "exactly_once",
        1.1,
        100.0,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PLAN + "warmup_s = 1\n", "unknown field `warmup_s`"),
        ("warm_up_s = 1\n", "missing required field `plan`"),
        ("plan = []\n", "a plan needs at least one piece"),
        ("plan = [{ seconds = 1.0, rate = 1.0, rate_t = 2.0 }]\n", "unknown field `rate_t`"),
        ('plan = [{ seconds = "long", rate = 1.0 }]\n', r"Expected `float`, got `str` - at `\$.plan\[0\].seconds`"),
        (PLAN + "warm_up_s = 10.0\n", "warm_up_s: 10.0 must be within"),
        (PLAN + 'delivery = "twice"\n', "delivery: 'twice' is not one of"),
        (PLAN + 'isolation = "none"\n', "isolation: 'none' is not one of"),
        (PLAN + "partitions = 0\n", "partitions: 0 must"),
        (PLAN + "[traffic]\ncard = 7\n", "traffic.card: unknown key"),
        (PLAN + "[traffic]\npoison_share = 2\n", "poison_share: 2 must be within"),
        (PLAN + "[engine.kafka]\nlinger = 1\n", "engine.kafka: "),
        ("plan = [", "Invalid"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(text: str, says: str) -> None:
    with pytest.raises(LoadTestError, match=f"profile mine: .*{says}"):
        parse_load_profile(text, "mine")


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(LoadTestError, match="none of burst, diurnal, ramp, smoke"):
        read_load_profile("smokes")
