"""Evaluation of rules over whole batches: a list of steps, one for each distinct part of all rules, in one kernel.

What null, comparisons and arithmetic mean stands in engine/policy/expressions.py. Here an absent number is NaN, which
compares as false by itself, except that it is unequal to everything; an absent text is the word 0, a flag 0.0 or 1.0.

A step takes the values of a few dozen events at once to its own register, so that all registers stay in the nearest
cache: fifty rules have some three hundred steps, and as many calls of numpy cost more than what they compute.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.policy.expressions import (
    Among,
    Arithmetic,
    Call,
    Comparison,
    Expression,
    Junction,
    Known,
    Name,
    Negative,
    Node,
    Not,
    Number,
    kind_of,
)
from features.jit import inlined, kernel

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Events that a step takes at once.
BLOCK = 64
# Up to here it is quicker to compare with one literal after the other than to search among them.
_ONE_BY_ONE_MAX = 8

(
    _VALUE, _EXTRA, _FLAG, _LITERAL, _NEGATIVE, _ABS, _ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _MIN, _MAX, _KNOWN, _LESS,
    _LESS_EQUAL, _EQUAL, _UNEQUAL, _AMONG, _KNOWN_TEXT, _AMONG_TEXTS, _NOT, _AND, _OR,
) = range(23)  # fmt: skip
_ARITHMETIC = {"+": _ADD, "-": _SUBTRACT, "*": _MULTIPLY, "/": _DIVIDE}
_COMPARISONS = {"<": _LESS, "<=": _LESS_EQUAL, "==": _EQUAL, "!=": _UNEQUAL}
_MIRRORED = {">": "<", ">=": "<="}

# The word of a text in a column, by the column's name; never 0.
WordOf = Callable[[str, str], int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each name is found: `values` in a column of that matrix, the others in a row of theirs."""

    values: Mapping[str, int]
    extra: Mapping[str, int]
    texts: Mapping[str, int]
    flags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Inputs:
    """n events: `values[n, features]` and `extra[any, n]` NaN or infinite where absent, `texts[any, n]` words, 0 where
    absent, `flags[any, n]`. All are C-contiguous, and may be written to, though nobody does.
    """

    values: Float64
    extra: Float64
    texts: UInt64
    flags: Bool


class Rules:
    """The steps of several expressions. One instance serves one thread."""

    def __init__(self, expressions: Sequence[Expression], layout: Layout, word_of: WordOf) -> None:
        """Raises KeyError for a name that is nowhere."""
        plan = _Plan(layout, word_of)
        self._roots = np.array([plan.place(expression.root) for expression in expressions], np.int64)
        self._code = np.array(plan.code, np.int64).reshape(-1, 4)
        self._literals = np.array(plan.literals, np.float64)
        self._words = np.array(plan.words, np.uint64)
        self._registers = np.empty((len(plan.code), BLOCK))

    def __len__(self) -> int:
        """How many steps."""
        return len(self._code)

    def holds(self, inputs: Inputs) -> Bool:
        """Which expression holds of which event: bool[expressions, n], the caller's own."""
        found = np.empty((len(self._roots), len(inputs.values)), np.bool_)
        if len(self._roots):
            run(
                inputs.values, inputs.extra, inputs.texts, inputs.flags, self._code, self._literals, self._words,
                self._roots, self._registers, found,
            )  # fmt: skip
        return found


class _Plan:
    """`code` has a row (operation and up to three operands) for each distinct part, after those that it builds on.

    Operands are numbers of steps, except for columns of inputs and for ranges of `literals` and `words`.
    """

    def __init__(self, layout: Layout, word_of: WordOf) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self.literals: list[float] = []
        self.words: list[int] = []
        self._layout = layout
        self._word_of = word_of
        self._places: dict[Node, int] = {}

    def place(self, node: Node) -> int:
        """The number of the step that gives a part's values."""
        if node not in self._places:
            self._places[node] = self._step(node)
        return self._places[node]

    def _add(self, operation: int, a: int = 0, b: int = 0, c: int = 0) -> int:
        self.code.append((operation, a, b, c))
        return len(self.code) - 1

    def _step(self, node: Node) -> int:
        match node:
            case Number(value=value):
                self.literals.append(value)
                return self._add(_LITERAL, len(self.literals) - 1)
            case Name():
                return self._column(node)
            case Negative(operand=operand):
                return self._add(_NEGATIVE, self.place(operand))
            case Arithmetic(operator=operator, left=left, right=right):
                return self._add(_ARITHMETIC[operator], self.place(left), self.place(right))
            case Call(function="abs", arguments=(argument,)):
                return self._add(_ABS, self.place(argument))
            case Call(function=function, arguments=arguments):
                return self._folded(_MIN if function == "min" else _MAX, arguments)
            case Known(operand=Name(kind="text", name=name)):
                return self._add(_KNOWN_TEXT, self._layout.texts[name])
            case Known(operand=operand):
                return self._add(_KNOWN, self.place(operand))
            case Comparison(operator=operator, left=left, right=right):
                if operator in _MIRRORED:
                    left, operator, right = right, _MIRRORED[operator], left
                return self._add(_COMPARISONS[operator], self.place(left), self.place(right))
            case Among(operand=operand, literals=literals, within=False):
                # What is there, and none of the literals.
                among = self.place(Among(operand, literals, True))
                return self._add(_AND, self.place(Known(operand)), self._add(_NOT, among))
            case Among():
                return self._among(node)
            case Not(condition=condition):
                return self._add(_NOT, self.place(condition))
            case Junction(word=word, conditions=conditions):
                return self._folded(_AND if word == "and" else _OR, conditions)

    def _column(self, node: Name) -> int:
        if node.kind == "flag":
            return self._add(_FLAG, self._layout.flags[node.name])
        if node.name in self._layout.values:
            return self._add(_VALUE, self._layout.values[node.name])
        return self._add(_EXTRA, self._layout.extra[node.name])

    def _folded(self, operation: int, operands: Sequence[Node]) -> int:
        first, *others = (self.place(operand) for operand in operands)
        for other in others:
            first = self._add(operation, first, other)
        return first

    def _among(self, node: Among) -> int:
        if kind_of(node.operand) != "text":
            place, start = self.place(node.operand), len(self.literals)
            self.literals += sorted(float(literal) for literal in node.literals)
            return self._add(_AMONG, place, start, len(self.literals))
        assert isinstance(node.operand, Name)
        name, start = node.operand.name, len(self.words)
        self.words += sorted(self._word_of(name, str(literal)) for literal in node.literals)
        return self._add(_AMONG_TEXTS, self._layout.texts[name], start, len(self.words))


@kernel
def run(
    values: Float64, extra: Float64, texts: UInt64, flags: Bool, code: Int64, literals: Float64, words: UInt64,
    roots: Int64, registers: Float64, found: Bool,
) -> None:  # fmt: skip
    """Takes all steps for a block of events after the other; writes `found[roots, n]`."""
    for start in range(0, values.shape[0], BLOCK):
        events = min(BLOCK, values.shape[0] - start)
        for step in range(code.shape[0]):
            operation, a, b, c = code[step, 0], code[step, 1], code[step, 2], code[step, 3]
            if operation <= _LITERAL:
                _load(operation, a, start, events, values, extra, flags, literals, registers, step)
            elif operation <= _MAX:
                _compute(operation, a, b, events, registers, step)
            elif operation <= _UNEQUAL:
                _compare(operation, a, b, events, registers, step)
            elif operation == _AMONG:
                for event in range(events):
                    registers[step, event] = _is_number_among(registers[a, event], literals, b, c)
            elif operation == _KNOWN_TEXT:
                for event in range(events):
                    registers[step, event] = texts[a, start + event] != 0
            elif operation == _AMONG_TEXTS:
                for event in range(events):
                    registers[step, event] = _is_word_among(texts[a, start + event], words, b, c)
            else:
                _join(operation, a, b, events, registers, step)
        for root in range(roots.shape[0]):
            for event in range(events):
                found[root, start + event] = registers[roots[root], event] != 0.0


@inlined
def _load(
    operation: int, a: int, start: int, events: int, values: Float64, extra: Float64, flags: Bool, literals: Float64,
    registers: Float64, step: int,
) -> None:  # fmt: skip
    if operation == _VALUE:
        for event in range(events):
            registers[step, event] = _finite(values[start + event, a])
    elif operation == _EXTRA:
        for event in range(events):
            registers[step, event] = _finite(extra[a, start + event])
    elif operation == _FLAG:
        for event in range(events):
            registers[step, event] = 1.0 if flags[a, start + event] else 0.0
    else:
        for event in range(events):
            registers[step, event] = literals[a]


@inlined
def _compute(operation: int, a: int, b: int, events: int, registers: Float64, step: int) -> None:
    if operation == _NEGATIVE:
        for event in range(events):
            registers[step, event] = -registers[a, event]
    elif operation == _ABS:
        for event in range(events):
            registers[step, event] = abs(registers[a, event])
    elif operation == _ADD:
        for event in range(events):
            registers[step, event] = _finite(registers[a, event] + registers[b, event])
    elif operation == _SUBTRACT:
        for event in range(events):
            registers[step, event] = _finite(registers[a, event] - registers[b, event])
    elif operation == _MULTIPLY:
        for event in range(events):
            registers[step, event] = _finite(registers[a, event] * registers[b, event])
    elif operation == _DIVIDE:
        for event in range(events):
            registers[step, event] = _finite(registers[a, event] / registers[b, event])
    else:
        sign = 1.0 if operation == _MIN else -1.0
        for event in range(events):
            one, other = registers[a, event], registers[b, event]
            # Of a number and null, the number.
            keeps = sign * one <= sign * other or math.isnan(other)
            registers[step, event] = one if keeps else other


@inlined
def _compare(operation: int, a: int, b: int, events: int, registers: Float64, step: int) -> None:
    if operation == _KNOWN:
        for event in range(events):
            registers[step, event] = not math.isnan(registers[a, event])
    elif operation == _LESS:
        for event in range(events):
            registers[step, event] = registers[a, event] < registers[b, event]
    elif operation == _LESS_EQUAL:
        for event in range(events):
            registers[step, event] = registers[a, event] <= registers[b, event]
    elif operation == _EQUAL:
        for event in range(events):
            registers[step, event] = registers[a, event] == registers[b, event]
    else:
        for event in range(events):
            # NaN is neither less nor greater, but it is unequal.
            one, other = registers[a, event], registers[b, event]
            registers[step, event] = one < other or one > other


@inlined
def _join(operation: int, a: int, b: int, events: int, registers: Float64, step: int) -> None:
    if operation == _NOT:
        for event in range(events):
            registers[step, event] = 1.0 - registers[a, event]
    elif operation == _AND:
        for event in range(events):
            registers[step, event] = registers[a, event] * registers[b, event]
    else:
        for event in range(events):
            registers[step, event] = max(registers[a, event], registers[b, event])


@inlined
def _finite(number: float) -> float:
    """The number, or NaN for one that is infinite."""
    return number if abs(number) < math.inf else math.nan


@inlined
def _is_number_among(number: float, literals: Float64, start: int, end: int) -> bool:
    if end - start > _ONE_BY_ONE_MAX:
        while end - start > 1:
            middle = (start + end) // 2
            if number < literals[middle]:
                end = middle
            else:
                start = middle
        return bool(literals[start] == number)
    found = False
    for at in range(start, end):
        found |= literals[at] == number
    return found


@inlined
def _is_word_among(word: np.uint64, words: UInt64, start: int, end: int) -> bool:
    if end - start > _ONE_BY_ONE_MAX:
        while end - start > 1:
            middle = (start + end) // 2
            if word < words[middle]:
                end = middle
            else:
                start = middle
        return bool(words[start] == word)
    found = False
    for at in range(start, end):
        found |= words[at] == word
    return found


def warm_up() -> None:
    """Compiles the kernel, or loads it compiled."""
    name = Name("a", "number")
    layout = Layout({"a": 0}, {}, {}, {})
    one = np.ones((1, 1))
    inputs = Inputs(one, one, np.ones((1, 1), np.uint64), np.ones((1, 1), np.bool_))
    Rules([Expression(Known(name), ("a",), "known(a)")], layout, lambda _name, _text: 1).holds(inputs)
