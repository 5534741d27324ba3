"""Rule expressions for one event at a time, with None for null: slow, and as it is written down."""

import math
from collections.abc import Mapping

from engine.policy.expressions import (
    Among,
    Arithmetic,
    Call,
    Comparison,
    Junction,
    Known,
    Name,
    Negative,
    Node,
    Not,
    Number,
)

# A number, a text, a flag, or null.
Value = float | str | bool | None
Row = Mapping[str, Value]


def holds(condition: Node, row: Row) -> bool:
    """Whether a condition is true of an event, whose values stand in `row` by name."""
    match condition:
        case Name(name=name):
            flag = row[name]
            assert isinstance(flag, bool)
            return flag
        case Known(operand=operand):
            return value_of(operand, row) is not None
        case Not(condition=inner):
            return not holds(inner, row)
        case Junction(word="and", conditions=conditions):
            return all(holds(inner, row) for inner in conditions)
        case Junction(word="or", conditions=conditions):
            return any(holds(inner, row) for inner in conditions)
        case Among(operand=operand, literals=literals, within=within):
            value = value_of(operand, row)
            return value is not None and (value in literals) == within
        case Comparison(operator=operator, left=left, right=right):
            return compared(operator, number_of(left, row), number_of(right, row))
    raise AssertionError(f"{condition} is no condition")


def compared(operator: str, left: float | None, right: float | None) -> bool:
    """Nothing compares with null."""
    if left is None or right is None:
        return False
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]


def value_of(node: Node, row: Row) -> float | str | None:
    """A number or a text."""
    if isinstance(node, Name) and node.kind == "text":
        text = row[node.name]
        assert text is None or isinstance(text, str)
        return text
    return number_of(node, row)


def number_of(node: Node, row: Row) -> float | None:
    """A number; None for whatever is not a finite one."""
    value = _number_of(node, row)
    return value if value is not None and math.isfinite(value) else None


def _number_of(node: Node, row: Row) -> float | None:
    match node:
        case Number(value=value):
            return value
        case Name(name=name):
            number = row[name]
            assert number is None or isinstance(number, float)
            return number
        case Negative(operand=operand):
            inner = number_of(operand, row)
            return None if inner is None else -inner
        case Call(function="abs", arguments=(argument,)):
            inner = number_of(argument, row)
            return None if inner is None else abs(inner)
        case Call(function=function, arguments=arguments):
            there = [number for argument in arguments if (number := number_of(argument, row)) is not None]
            return {"min": min, "max": max}[function](there, default=None)
        case Arithmetic(operator=operator, left=left, right=right):
            return _result(operator, number_of(left, row), number_of(right, row))
    raise AssertionError(f"{node} is no number")


def _result(operator: str, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    if operator == "/":
        return None if right == 0 else left / right
    return {"+": left + right, "-": left - right, "*": left * right}[operator]
