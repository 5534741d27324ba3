"""Expressions: the conditions of a policy's rules, such as `card.count.10m.small.prior >= 3 and amount > 200`.

Three kinds of values have names: numbers (float64: features, number fields, the amount in major units, the score),
texts (`entry_mode`) and flags (named predicates, true or false). An expression is a flag, made of

- `+ - * /` and unary minus over numbers, `min(a, b, ...)`, `max(a, b, ...)`, `abs(x)`;
- `== != < <= > >=` between numbers, also chained: `1 < amount < 5` means `1 < amount and amount < 5`;
- `in` and `not in` a list of number literals; of a text only `== != in`, `not in`, and only with text in quotes;
- `known(x)`, whether a number or a text is there at all; `and`, `or`, `not` and parentheses.

Null is a number or a text that an event does not have: NaN, infinity, an absent field. Arithmetic with null gives null,
as do a division by zero and any result too large for a float64; `min` and `max` leave nulls out, and are null when all
are. A comparison with null is false, `!=` and `not in` included; `not` alone turns that around. A flag is never null.

The notation is Python's, and Python's parser reads it, with a placeholder of the same length for each name, number and
text: names may have dots (`card.count.1h`), which that parser would not take, and positions stay those of the text.
Nothing of it is ever executed. Line ends count as spaces.
"""

import ast
import difflib
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

TEXT_CHARS_MAX = 10_000
# Of a word that is quoted in an error.
SHOWN_CHARS_MAX = 60
# Levels of operators and functions within each other. A chain of `and` or `or` is one, `a + b + c` two.
DEPTH_MAX = 64
NUMBER_CHARS_MAX = 40

Kind = Literal["number", "text", "flag"]

# Functions with the fewest and the most arguments that they take.
FUNCTIONS: dict[str, tuple[int, float]] = {
    "abs": (1, 1), "known": (1, 1), "max": (2, math.inf), "min": (2, math.inf),
}  # fmt: skip

_TOKEN = re.compile(
    r"""(?P<space>[ \t\f\r\n]+)
    | (?P<text>'(?:[^'\\\r\n]|\\[^\r\n])*' | "(?:[^"\\\r\n]|\\[^\r\n])*")
    | (?P<number>\.?[0-9][\w.]*(?:(?<=[eE])[+-][0-9]+)?)
    | (?P<word>[^\W\d]\w*(?:\.\w+)*)
    | (?P<symbol><=|>=|==|!=|<>|<<|>>|\*\*|//|&&|\|\||:=|.)""",
    re.VERBOSE | re.DOTALL,
)
_LINE_END = re.compile(r"\r\n|\r|\n")
_CALL = re.compile(r"[ \t\f\r\n]*\(")
_DECIMAL = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_SYMBOLS = frozenset(["(", ")", "[", "]", "{", "}", ",", "+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="])
_WORDS = ("and", "or", "not", "in")
_HINTS = {
    "=": "write == to compare", "<>": "write != for unequal", "!": "write not", ":=": "write == to compare",
    "&": "write and", "&&": "write and", "|": "write or", "||": "write or", "~": "write not",
    "'": "this text is not closed on its line", '"': "this text is not closed on its line",
    **dict.fromkeys("\u2018\u2019\u201c\u201d\u201e\xab\xbb", "text stands in straight quotes"),
    "#": "comments are not allowed",
    **dict.fromkeys(["is", "None", "null", "NULL"], "known(x) says whether a value is there"),
    **dict.fromkeys(["True", "False", "true", "false"], "a flag stands alone, or after not"),
    **{word.upper(): f"write {word} in small letters" for word in _WORDS},
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class ExpressionError(ValueError):
    """A text that is no condition: `message` says what is wrong at `line` and `column`, both counted from 1.

    A column is a character of the text as it was given, whatever its encoding.
    """

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.message = message


@dataclass(frozen=True, slots=True)
class Number:
    """A literal; never NaN, infinite or negative zero."""

    value: float


@dataclass(frozen=True, slots=True)
class Name:
    """A column of events."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Negative:
    """A number with its sign turned; of a literal it is a literal instead."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`+`, `-`, `*` or `/` of two numbers."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Call:
    """`abs` of one number, `max` or `min` of several."""

    function: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Known:
    """Whether a number or a text is there."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two numbers by `==`, `!=`, `<`, `<=`, `>`, `>=`; a literal is on the right, and then the first two are Among."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Among:
    """Whether a number or a text is one of the literals, or when not `within` is another; they ascend, each once."""

    operand: "Node"
    literals: tuple[float, ...] | tuple[str, ...]
    within: bool


@dataclass(frozen=True, slots=True)
class Not:
    """What holds where the other does not."""

    condition: "Node"


@dataclass(frozen=True, slots=True)
class Junction:
    """Two or more conditions joined by `and` or by `or`, none of them a junction by the same word."""

    word: str
    conditions: tuple["Node", ...]


Node = Number | Name | Negative | Arithmetic | Call | Known | Comparison | Among | Not | Junction


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition that was checked: `root` is a flag, `names` are the columns it needs, ascending.

    `text` is the same for expressions that differ only in how they are written: spaces, quotes, needless parentheses,
    the spelling of a number, the order of a list, the side of a literal. Read again, it gives an equal expression.
    """

    root: Node
    names: tuple[str, ...]
    text: str


def parse_expression(text: str, names: Mapping[str, Kind]) -> Expression:
    """Reads a condition over the columns in `names`; raises ExpressionError."""
    root = _Parser(text, names).parse()
    return Expression(root, tuple(sorted(set(names_in(root)))), _written(root))


def kind_of(node: Node) -> Kind:
    """What a node's values are."""
    match node:
        case Name():
            return node.kind
        case Number() | Negative() | Arithmetic() | Call():
            return "number"
        case Known() | Comparison() | Among() | Not() | Junction():
            return "flag"


def names_in(node: Node) -> Iterator[str]:
    """The names of the columns below a node, as often as they are written."""
    match node:
        case Number():
            pass
        case Name():
            yield node.name
        case Negative(operand=inner) | Known(operand=inner) | Among(operand=inner) | Not(condition=inner):
            yield from names_in(inner)
        case Arithmetic(left=left, right=right) | Comparison(left=left, right=right):
            yield from names_in(left)
            yield from names_in(right)
        case Call(arguments=several) | Junction(conditions=several):
            for inner in several:
                yield from names_in(inner)


class _Token(NamedTuple):
    """A name, a function, a number or a text, and what stands for it while Python's parser reads."""

    what: str
    placeholder: str
    value: str | float


class _Parser:
    """One text on its way to a condition; every other way out is an ExpressionError."""

    def __init__(self, text: str, names: Mapping[str, Kind]) -> None:
        self._text = text
        self._names = names
        # By where they start, counted in characters of the text.
        self._tokens: dict[int, _Token] = {}
        self._indent = 0

    def parse(self) -> Node:
        if len(self._text) > TEXT_CHARS_MAX:
            raise self._error_at(0, f"{len(self._text)} characters: at most {TEXT_CHARS_MAX} are allowed")
        masked = self._masked()
        source = masked.strip()
        if not source:
            raise self._error_at(0, "is empty; write a condition, as in amount > 200")
        self._indent = len(masked) - len(masked.lstrip())
        return self._flag(self._parsed(source), DEPTH_MAX)

    def _parsed(self, source: str) -> ast.expr:
        try:
            with warnings.catch_warnings(action="error"):
                return ast.parse(source, mode="eval").body
        except SyntaxError as error:
            at = max(1, error.offset or len(source) + 1) - 1
            message = "ends where a value is expected" if at >= len(source) else error.msg.partition(". ")[0]
            raise self._error_at(self._indent + at, message) from None
        except (RecursionError, MemoryError):
            raise self._error_at(self._indent, "nested too deep") from None

    # --- tokens ---

    def _masked(self) -> str:
        """The text in ASCII without line ends, as long as it was, with placeholders for all but operators."""
        parts, after_value = [], False
        for match in _TOKEN.finditer(self._text):
            at, written = match.start(), match[0]
            if match.lastgroup == "space":
                parts.append(" " * len(written))
                continue
            token = self._token(at, written, match.lastgroup or "")
            if token is None:
                parts.append(written)
                after_value = False
                continue
            if after_value:
                raise self._error_at(at, "an operator or a comma is missing before this")
            parts.append(token.placeholder)
            self._tokens[at] = token
            after_value = True
        return "".join(parts)

    def _token(self, at: int, written: str, group: str) -> _Token | None:
        """None for an operator."""
        if group == "text":
            return _Token("text", f'"{"_" * (len(written) - 2)}"', self._text_value(at, written))
        if group == "number":
            return _Token("number", "1" * len(written), self._number_value(at, written))
        if written in _WORDS or written in _SYMBOLS:
            return None
        if group == "word":
            return _Token(self._role(at, written), "_" * len(written), written)
        hint = f"; {_HINTS[written]}" if written in _HINTS else ""
        raise self._error_at(at, f"{written!r} has no meaning here{hint}")

    def _role(self, at: int, word: str) -> str:
        """Whether a word is a function or a name: a column may be named as a function is."""
        called = _CALL.match(self._text, at + len(word)) is not None
        if called and word in FUNCTIONS:
            return "function"
        if called and word not in _HINTS:
            raise self._error_at(at, f"{_shown(word)} is no function; allowed: {', '.join(FUNCTIONS)}")
        if word not in self._names:
            raise self._unknown(at, word)
        return "name"

    def _unknown(self, at: int, word: str) -> ExpressionError:
        if word in _HINTS:
            return self._error_at(at, f"{word!r} has no meaning here; {_HINTS[word]}")
        close = difflib.get_close_matches(word, self._names)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return self._error_at(at, f"{_shown(word)} is no known name, or lacks its quotes{hint}")

    def _text_value(self, at: int, written: str) -> str:
        try:
            with warnings.catch_warnings(action="error"):
                value = ast.literal_eval(written)
        except (SyntaxError, ValueError) as error:
            lone = isinstance(error, UnicodeEncodeError)
            said = "a lone surrogate is no character" if lone else str(getattr(error, "msg", error))
            raise self._error_at(at, f"this text cannot be read: {said}") from None
        if not value:
            raise self._error_at(at, "empty text counts as absent, and never compares; write known(x)")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self._error_at(at, "this text cannot be read: a lone surrogate is no character")
        return str(value)

    def _number_value(self, at: int, written: str) -> float:
        if not _DECIMAL.fullmatch(written):
            raise self._error_at(at, f"{_shown(written)} is no decimal number")
        value = float(written)
        # What is not zero as it is written is not zero as a float64 either.
        vanished = value == 0 and re.search("[1-9]", re.split("[eE]", written)[0]) is not None
        if len(written) > NUMBER_CHARS_MAX or math.isinf(value) or vanished:
            raise self._error_at(at, f"too large, too close to 0, or longer than {NUMBER_CHARS_MAX} characters")
        return value

    # --- tree ---

    def _node(self, node: ast.expr, depth: int) -> Node:
        if not depth:
            raise self._error(node, f"nested too deep: at most {DEPTH_MAX} levels")
        match node:
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return _joined(word, [self._flag(value, depth - 1) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self._flag(operand, depth - 1))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self._number(operand, depth - 1)
                # 0 - 0 has no sign, as -0 has.
                return Number(0.0 - inner.value) if isinstance(inner, Number) else Negative(inner)
            case ast.BinOp(left=left, op=op, right=right):
                sides = self._number(left, depth - 1), self._number(right, depth - 1)
                return Arithmetic(_ARITHMETIC[type(op)], *sides)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                pairs = zip([left, *comparators], ops, comparators, strict=False)
                return _joined("and", [self._comparison(a, op, b, depth - 1) for a, op, b in pairs])
            case ast.Call(func=ast.Name() as function, args=arguments) if self._token_of(function).what == "function":
                return self._call(node, str(self._token_of(function).value), arguments, depth - 1)
            case ast.Name():
                name = str(self._token_of(node).value)
                return Name(name, self._names[name])
            case ast.Constant() if not self._is_text(node):
                return Number(float(self._token_of(node).value))
        raise self._error(node, self._refusal(node))

    def _refusal(self, node: ast.expr) -> str:
        match node:
            case ast.Constant():
                return 'text in quotes stands beside a name, as in mode == "a" or mode in ("a", "b")'
            case ast.Tuple() | ast.List() | ast.Set():
                return "a list stands after in or not in"
            case ast.Call():
                return f"this is no function; allowed: {', '.join(FUNCTIONS)}"
            case ast.UnaryOp():
                return "a plus sign needs a number on both sides"
            case _:
                return "not a condition; allowed: + - * / == != < <= > >= in, not in, and, or, not, ( ), functions"

    def _flag(self, node: ast.expr, depth: int) -> Node:
        found = self._node(node, depth)
        if kind_of(found) != "flag":
            raise self._error(node, f"{_described(found)} alone is no condition; compare it with a value")
        return found

    def _number(self, node: ast.expr, depth: int) -> Node:
        found = self._node(node, depth)
        if kind_of(found) != "number":
            raise self._error(node, f"{_described(found)} is no number")
        return found

    def _call(self, node: ast.expr, function: str, arguments: list[ast.expr], depth: int) -> Node:
        least, most = FUNCTIONS[function]
        if not least <= len(arguments) <= most:
            wanted = "one argument" if most == 1 else "two or more arguments"
            raise self._error(node, f"{function} takes {wanted}, not {len(arguments)}")
        if function != "known":
            return Call(function, tuple(self._number(argument, depth) for argument in arguments))
        operand = self._value(arguments[0], depth)
        self._check_varying(arguments[0], operand)
        return Known(operand)

    def _value(self, node: ast.expr, depth: int) -> Node:
        """A number or a text."""
        found = self._node(node, depth)
        if kind_of(found) == "flag":
            raise self._error(node, f"{_described(found)} stands alone, or after not: a flag is never null")
        return found

    def _check_varying(self, node: ast.expr, *operands: Node) -> None:
        if not any(name for operand in operands for name in names_in(operand)):
            raise self._error(node, "has no name in it, and so is the same for every event")

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Node:
        operator = _COMPARISONS[type(op)]
        if operator in ("in", "not in"):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
                raise self._error(right, "not a list of values, as in (1, 2)")
            return self._among(left, right.elts, operator == "in", depth)
        if self._is_text(left):
            left, operator, right = right, _MIRRORED[operator], left
        if not self._is_text(right):
            return self._numbers_compared(left, operator, right, depth)
        if operator not in ("==", "!="):
            raise self._error(right, "text has no order: compare it by ==, !=, in or not in")
        return self._among(left, [right], operator == "==", depth)

    def _numbers_compared(self, left: ast.expr, operator: str, right: ast.expr, depth: int) -> Node:
        one, other = self._value(left, depth), self._value(right, depth)
        for text, node in ((one, right), (other, left)):
            if kind_of(text) == "text":
                raise self._error(node, f"{_described(text)} is text: compare it with text in quotes")
        if isinstance(one, Number):
            one, operator, other = other, _MIRRORED[operator], one
        self._check_varying(left, one, other)
        if isinstance(other, Number) and operator in ("==", "!="):
            return Among(one, (other.value,), operator == "==")
        return Comparison(operator, one, other)

    def _among(self, node: ast.expr, listed: list[ast.expr], within: bool, depth: int) -> Node:
        operand = self._value(node, depth)
        self._check_varying(node, operand)
        if kind_of(operand) == "text":
            return Among(operand, tuple(sorted({self._text_literal(item, operand) for item in listed})), within)
        return Among(operand, tuple(sorted({self._number_literal(item, operand) for item in listed})), within)

    def _text_literal(self, node: ast.expr, operand: Node) -> str:
        if not self._is_text(node):
            raise self._error(node, f"{_described(operand)} is text: compare it with text in quotes")
        return str(self._token_of(node).value)

    def _number_literal(self, node: ast.expr, operand: Node) -> float:
        if self._is_text(node):
            raise self._error(node, f"{_described(operand)} is a number: compare it with a number, without quotes")
        found = self._node(node, DEPTH_MAX)
        if not isinstance(found, Number):
            raise self._error(node, "not a value; a list has numbers, or text in quotes")
        return found.value

    def _is_text(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and self._token_of(node).what == "text"

    def _token_of(self, node: ast.expr) -> _Token:
        """The parser counts in UTF-8 bytes, which here are characters."""
        return self._tokens[self._indent + node.col_offset]

    def _error(self, node: ast.expr, message: str) -> ExpressionError:
        return self._error_at(self._indent + node.col_offset, message)

    def _error_at(self, at: int, message: str) -> ExpressionError:
        ends = [match.end() for match in _LINE_END.finditer(self._text, 0, at)]
        return ExpressionError(len(ends) + 1, at - (ends[-1] if ends else 0) + 1, message)


def _joined(word: str, conditions: list[Node]) -> Node:
    """The conditions as one, without a junction directly below one of the same word."""
    flat: list[Node] = []
    for condition in conditions:
        same = isinstance(condition, Junction) and condition.word == word
        flat += condition.conditions if isinstance(condition, Junction) and same else (condition,)
    return flat[0] if len(flat) == 1 else Junction(word, tuple(flat))


def _shown(word: str) -> str:
    return repr(word if len(word) <= SHOWN_CHARS_MAX else f"{word[:SHOWN_CHARS_MAX]}...")


def _described(node: Node) -> str:
    match node:
        case Name():
            return _shown(node.name)
        case Number():
            return _written(node)
        case _:
            return "a condition" if kind_of(node) == "flag" else "this"


# --- text ---

# How tightly what is written holds together.
_JUNCTION, _NOT, _COMPARED, _SUM, _PRODUCT, _SIGNED, _WHOLE = range(7)


def _binding(node: Node) -> int:
    match node:
        case Junction():
            return _JUNCTION
        case Not():
            return _NOT
        case Comparison() | Among():
            return _COMPARED
        case Arithmetic():
            return _SUM if node.operator in "+-" else _PRODUCT
        case Negative():
            return _SIGNED
        case Number() | Name() | Call() | Known():
            return _WHOLE


def _written(node: Node) -> str:
    match node:
        case Number(value=value):
            return _literal_text(value)
        case Name(name=name):
            return name
        case Negative(operand=operand):
            return f"-{_within(operand, _SIGNED)}"
        case Arithmetic(operator=operator, left=left, right=right):
            # Operators that bind alike are read from the left.
            own = _binding(node)
            return f"{_within(left, own)} {operator} {_within(right, own + 1)}"
        case Call(function=function, arguments=arguments):
            return f"{function}({', '.join(_written(argument) for argument in arguments)})"
        case Known(operand=operand):
            return f"known({_written(operand)})"
        case Comparison(operator=operator, left=left, right=right):
            return f"{_written(left)} {operator} {_written(right)}"
        case Among(operand=operand, literals=(one,), within=within):
            return f"{_written(operand)} {'==' if within else '!='} {_literal_text(one)}"
        case Among(operand=operand, literals=literals, within=within):
            listed = ", ".join(_literal_text(literal) for literal in literals)
            return f"{_written(operand)} {'in' if within else 'not in'} ({listed})"
        case Not(condition=condition):
            return f"not {_within(condition, _WHOLE)}"
        case Junction(word=word, conditions=conditions):
            return f" {word} ".join(_within(condition, _NOT) for condition in conditions)


def _within(node: Node, binding: int) -> str:
    """What is written of an operand, in parentheses unless it binds at least so tightly."""
    return _written(node) if _binding(node) >= binding else f"({_written(node)})"


def _literal_text(value: float | str) -> str:
    if isinstance(value, str):
        return repr(value)
    return repr(value).removesuffix(".0")
