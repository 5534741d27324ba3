"""Conditions of rules over columns by name, as tests write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.policy.evaluate import Bool, Inputs, Layout, Rules
from engine.policy.expressions import Expression
from features.words import text_word


@dataclass(frozen=True)
class Columns:
    """Columns of n events: `numbers` NaN or infinite where absent, `texts` hash words, 0 where absent, and `flags`."""

    numbers: Mapping[str, np.ndarray]
    texts: Mapping[str, np.ndarray]
    flags: Mapping[str, np.ndarray]

    @property
    def rows(self) -> int:
        """n."""
        return len(next(iter((*self.numbers.values(), *self.texts.values(), *self.flags.values()))))


def evaluated(expressions: Sequence[Expression], columns: Columns) -> Bool:
    """bool[expressions, n]. Every other number stands among the features, the rest beside them."""
    rules, inputs = ready(expressions, columns)
    return rules.holds(inputs)


def ready(expressions: Sequence[Expression], columns: Columns) -> tuple[Rules, Inputs]:
    """The same, not evaluated yet."""
    names = list(columns.numbers)
    features, extra = names[::2], names[1::2]
    layout = Layout(_places(features), _places(extra), _places(columns.texts), _places(columns.flags))
    inputs = Inputs(
        np.ascontiguousarray(_stacked([columns.numbers[name] for name in features], columns, np.float64).T),
        _stacked([columns.numbers[name] for name in extra], columns, np.float64),
        _stacked(list(columns.texts.values()), columns, np.uint64),
        _stacked(list(columns.flags.values()), columns, np.bool_),
    )
    return Rules(expressions, layout, text_word), inputs


def _places(names: Sequence[str] | Mapping[str, Any]) -> dict[str, int]:
    return {name: at for at, name in enumerate(names)}


def _stacked(found: list[np.ndarray], columns: Columns, kind: Any) -> Any:
    return np.array(found, kind).reshape(len(found), columns.rows)
