"""Which metrics, labels and values an expression names: as much of PromQL as rules and dashboards need.

sum by (job) (rate(tidegate_events_total{outcome="decided"}[5m])) > 0
    ^ groups on          ^ selects             ^ a label and the value asked for
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|\[[^\]]*\]|[a-zA-Z_:][\w:]*|\d[\w.]*|=~|!~|!=|[^\s]')
_NAME = re.compile(r"[a-zA-Z_:][\w:]*")
_LISTS_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_AGGREGATES = {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev", "count_values", "group"}
_WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}
_PLAIN_ALTERNATIVES = re.compile(r"[\w.+|-]*")


@dataclass
class Selector:
    """One metric, and of its labels (name, comparison, value)."""

    metric: str
    matchers: list[tuple[str, str, str]] = field(default_factory=list)

    def values(self, label: str) -> set[str]:
        """Values that are asked for or excluded; those of a pattern only where it is a list of words."""
        found: set[str] = set()
        for name, comparison, value in self.matchers:
            if name == label and _PLAIN_ALTERNATIVES.fullmatch(value):
                found |= set(value.split("|")) if "~" in comparison else {value}
        return found


@dataclass
class Named:
    """What an expression names."""

    selectors: list[Selector] = field(default_factory=list)
    grouped_by: set[str] = field(default_factory=set)


def named(expression: str) -> Named:
    """Every selector, and every label that is grouped by or matched on."""
    tokens, found, at = _TOKEN.findall(expression), Named(), 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        following = tokens[at] if at < len(tokens) else ""
        if token.lower() in _LISTS_LABELS:
            if following == "(":
                end = tokens.index(")", at)
                found.grouped_by |= set(tokens[at + 1 : end]) - {","}
                at = end + 1
        elif not _NAME.fullmatch(token) or token.lower() in _WORDS | _AGGREGATES or following == "(":
            assert token != "{", f"a selector without a metric: {expression}"
        else:
            selector = Selector(token)
            if following == "{":
                end = tokens.index("}", at)
                matched = [part for part in tokens[at + 1 : end] if part != ","]
                for label, comparison, value in zip(matched[::3], matched[1::3], matched[2::3], strict=True):
                    selector.matchers.append((label, comparison, value[1:-1]))
                at = end + 1
            found.selectors.append(selector)
    return found
