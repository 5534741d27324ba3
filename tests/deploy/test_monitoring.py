"""Rules and dashboards name what is exported, alerts have a runbook and a test, Prometheus takes every expression."""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from tests.deploy.exported import PROMETHEUS, TARGET_LABELS, VALUES, of_control, of_engine
from tests.deploy.promql import named

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
YAML_READER = YAML(typ="safe")


class Expression(NamedTuple):
    """An expression and where it stands."""

    where: str
    text: str


def rules() -> list[dict[str, Any]]:
    """Every rule, alerts and recorded ones."""
    groups = YAML_READER.load(DEPLOY / "prometheus" / "rules.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Every panel, those of collapsed rows included."""
    return [one for panel in dashboard["panels"] for one in (panel, *panel.get("panels", []))]


def expressions() -> Iterator[Expression]:
    """Of every rule, panel, annotation and variable."""
    for rule in rules():
        yield Expression(rule.get("alert") or rule["record"], rule["expr"])
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                yield Expression(f"{name}: {panel['title']}", target["expr"])
        for annotation in dashboard["annotations"]["list"]:
            yield Expression(f"{name}: annotation {annotation['name']}", annotation["expr"])
        for variable in dashboard["templating"]["list"]:
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked
            yield Expression(f"{name}: variable {variable['name']}", f"max by ({asked[2]}) ({asked[1]})")


def recorded() -> dict[str, set[str]]:
    """What our own rules record, with the labels that they group by."""
    return {rule["record"]: named(rule["expr"]).grouped_by for rule in rules() if "record" in rule}


def mistakes(text: str) -> list[str]:
    """Metrics, labels and values in an expression that nobody exports."""
    known = {**of_engine(), **of_control(), **PROMETHEUS, **recorded()}
    found = named(text)
    wrong = [f"metric {one.metric}" for one in found.selectors if one.metric not in known]
    labels = set(TARGET_LABELS)
    for one in found.selectors:
        own = known.get(one.metric, set()) | TARGET_LABELS
        labels |= own
        for label in sorted({name for name, _, _ in one.matchers}):
            if label not in own:
                wrong.append(f"label {label} of {one.metric}")
            elif label in VALUES:
                wrong += [f"value {value} of {label}" for value in sorted(one.values(label) - VALUES[label])]
    return wrong + [f"label {label}" for label in sorted(found.grouped_by - labels)]


@pytest.mark.parametrize("expression", list(expressions()), ids=lambda expression: expression.where)
def test_it_names_what_is_exported(expression: Expression) -> None:
    assert mistakes(expression.text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate(tidegate_event_total[5m])", "metric tidegate_event_total"),
        ('tidegate_events_total{outcom="decided"}', "label outcom of tidegate_events_total"),
        ('tidegate_events_total{outcome="deadletter"}', "value deadletter of outcome"),
        ('tidegate_event_to_decision_seconds_bucket{le="0.2"}', "value 0.2 of le"),
        ("sum by (partition) (tidegate_consumer_lag_seconds)", "label partition"),
        ("tidegate:slow_ratio:rate7m", "metric tidegate:slow_ratio:rate7m"),
    ],
)
def test_a_name_that_nobody_exports_is_found(text: str, said: str) -> None:
    assert mistakes(text) == [said]


# --- alerts ----------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may name."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in VALUES["severity"]
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert (ROOT / page).is_file()
    assert anchor in anchors(ROOT / page)


def test_every_runbook_is_of_an_alert_and_as_urgent() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    said = dict(re.findall(r"^## (Tidegate\w+)\n\n\*\*(\w+)\.\*\*", page, re.MULTILINE))
    assert said == {name: alert["labels"]["severity"] for name, alert in ALERTS.items()}


def test_every_alert_fires_in_a_test() -> None:
    fired = set()
    for path in (ROOT / "tests" / "deploy").glob("*.test.yml"):
        for test in YAML_READER.load(path)["tests"]:
            for asked in test.get("promql_expr_test", []):
                fired |= {sample["labels"] for sample in asked["exp_samples"]}
    assert fired == {f'{{alertname="{name}"}}' for name in ALERTS}


# --- dashboards ------------------------------------------------------------------------------------------------


def test_there_is_a_dashboard_for_engine_model_and_business() -> None:
    found = dashboards()
    assert found.keys() == {"engine", "model", "business"}
    assert len({dashboard["uid"] for dashboard in found.values()}) == len(found)


@pytest.mark.parametrize("name", dashboards())
def test_panels_are_apart_and_ask_the_provisioned_source(name: str) -> None:
    (source,) = YAML_READER.load(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    shown = panels(dashboards()[name])
    for key in ("id", "title"):
        assert [value for value, count in Counter(panel[key] for panel in shown).items() if count > 1] == []
    taken: Counter[tuple[int, int]] = Counter()
    for panel in shown:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        across, down = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        taken.update((x, y) for x in across for y in down)
        assert {target["datasource"]["uid"] for target in panel.get("targets", [])} <= {source["uid"]}
    assert max(taken.values()) == 1


# --- what Prometheus says --------------------------------------------------------------------------------------


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """Those of rules are tried by `make rules`; here those of the dashboards are rules too."""
    where = subprocess.run(
        [ROOT / "scripts" / "prometheus", "path", "promtool"], capture_output=True, text=True, check=False
    )
    if where.returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail(where.stderr, pytrace=False)
        pytest.skip(where.stderr)
    tried = [
        {"record": f"tried:{number}", "expr": re.sub(r"\$__\w+", "1m", expression.text)}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "tried", "rules": tried}]}))
    done = subprocess.run([where.stdout.strip(), "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_jobs_of_the_rules_are_those_that_are_scraped() -> None:
    scraped = {job["job_name"] for job in YAML_READER.load(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]}
    asked = {
        job for expression in expressions() for one in named(expression.text).selectors for job in one.values("job")
    }
    assert asked - {"$job"} == scraped == VALUES["job"] - {"$job"}
