"""The reader of expressions finds what they name."""

import pytest

from tests.deploy.promql import named


@pytest.mark.parametrize(
    ("expression", "selected", "grouped"),
    [
        ("up", {"up": set()}, set()),
        ('up{job="a"} == 0', {"up": {"job"}}, set()),
        ('sum by (a, b) (rate(x_total{c!~"d|e", f="g"}[5m] offset 1d)) > 1.5e3', {"x_total": {"c", "f"}}, {"a", "b"}),
        ("sum(x) by (a) / on (b) group_left (c) y", {"x": set(), "y": set()}, {"a", "b", "c"}),
        (
            "a_b:c:rate5m > 3 * (d offset 1d) and e unless absent(f)",
            {name: set() for name in ("a_b:c:rate5m", "d", "e", "f")},
            set(),
        ),
        ("histogram_quantile(0.99, sum by (le) (rate(x_bucket[$__rate_interval])))", {"x_bucket": set()}, {"le"}),
        ('x{a="}, b{"} or y', {"x": {"a"}, "y": set()}, set()),
        ("topk(10, max by (f) (x)) / on () group_left () sum(y)", {"x": set(), "y": set()}, {"f"}),
    ],
)
def test_what_is_named(expression: str, selected: dict[str, set[str]], grouped: set[str]) -> None:
    found = named(expression)
    assert {one.metric: {name for name, _, _ in one.matchers} for one in found.selectors} == selected
    assert found.grouped_by == grouped


def test_values_of_a_label() -> None:
    (selector,) = named('x{a=~"b|c", a!="d", e=~"f.*"}').selectors
    assert selector.values("a") == {"b", "c", "d"}
    assert selector.values("e") == set()
