"""What people read in a terminal: features, the state of one entity, dead letters, damage, checkpoints, policies."""

from datetime import UTC, datetime
from itertools import groupby

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.backtest.result import Backtest
from engine.backtest.text import basis, changed, conclusion, lines, money, side_name, whole
from engine.catalog import Entry
from engine.config import Config
from engine.inspect import Inspection
from engine.letters import Letter, ReasonCount, Survey, Values
from engine.policy.precedence import DECISIONS
from engine.policy_diff import Change, Outcome, PolicyDiff
from engine.state.checkpoints import PREFIX, Checkpoint
from engine.state.header import Header
from engine.state.verify import Verdict
from features.arena import NEVER
from models.survey import Version

# Where the output is no terminal, lines are as long as on a wide one.
PIPE_COLUMNS = 120


def print_catalog(config: Config, entries: list[Entry], header: Header | None, note: str) -> None:
    """One table per entity, one line per feature. `note`: why nothing is known of the state, where nothing is."""
    console = _console()
    console.print(f"feature set {config.feature_spec().fingerprint()}, {len(entries)} features")
    console.print(f"state: {escape(note)}" if header is None else _state_line(header))
    for name, group in groupby(entries, lambda entry: entry.entity):
        title = f"{name}, by {config.entity_key(name)!r}" if name else "the event itself"
        columns = ["feature", "unit", "definition"] + ["complete for events from"] * bool(name and header)
        table = _table(escape(title), columns)
        for entry in group:
            cells = [entry.name, entry.unit, entry.definition]
            if name and header is not None:
                cells.append(_completeness(entry, header))
            table.add_row(*map(escape, cells))
        console.print(table)


def _state_line(header: Header) -> str:
    if header.first_ms == NEVER:
        return "state: no event has been accepted yet"
    line = f"state: events from {moment(header.first_ms)} to {moment(header.newest_ms)}"
    if header.cold_ms != NEVER:
        line += f"; some up to {moment(header.cold_ms)} were never seen"
    return line


def _completeness(entry: Entry, header: Header) -> str:
    if entry.complete_from_ms is None:
        return "never: it has no window, and events are missing" if header.first_ms != NEVER else "-"
    if entry.complete_from_ms > header.newest_ms:
        return f"{moment(entry.complete_from_ms)}, not yet reached"
    return moment(entry.complete_from_ms)


def print_inspection(inspection: Inspection, rows_max: int) -> None:
    """Facts, the newest tiles and events of the ring, and the features last, where a terminal stands at the end."""
    console, look = _console(), inspection.look
    console.print(
        f"{inspection.entity.name} {escape(inspection.key)}: events from {moment(look.first_ms)} to "
        f"{moment(look.newest_ms)}"
    )
    if look.dropped_ms is None:
        console.print(f"the ring holds all of them: {len(look.ring)}")
    else:
        console.print(f"the ring holds the newest {len(look.ring)}: all after {moment(look.dropped_ms)}, perhaps more")
    if look.tiles:
        console.print(_tiles(inspection, rows_max))
    console.print(_ring(inspection, rows_max))
    values = _table(f"features at {moment(look.at_ms)}", ["feature", "value", "exact"], right=("value",))
    for name, value, exact in inspection.features():
        values.add_row(escape(name), _number(value), "yes" if exact else "no")
    console.print(values)


def _tiles(inspection: Inspection, rows_max: int) -> Table:
    tiles = inspection.look.tiles
    names = ["first event", "last event", "tile, s", "count", "sum", "min", "max"]
    title = f"tiles, amounts in {inspection.currency}{_not_shown(len(tiles) - rows_max)}"
    table = _table(title, names, right=("tile, s", "count", "sum", "min", "max"))
    for start_ms, end_ms, first_ms, last_ms, count, *amounts in tiles[max(0, len(tiles) - rows_max) :]:
        sums = [_number(inspection.amount(amount)) for amount in amounts]
        table.add_row(moment(first_ms), moment(last_ms), f"{(end_ms - start_ms) / 1_000:,}", f"{count:,}", *sums)
    return table


def _ring(inspection: Inspection, rows_max: int) -> Table:
    ring = inspection.look.ring
    names = [column.name for column in inspection.entity.columns]
    predicates = ["predicates"] if inspection.entity.predicates else []
    amount = f"amount, {inspection.currency}"
    title = f"events in the ring{_not_shown(len(ring) - rows_max)}"
    table = _table(title, ["time", amount, *map(escape, names), *predicates], right=(amount,))
    for time_ms, amount_minor, words, held in ring[max(0, len(ring) - rows_max) :]:
        fields = inspection.fields(words)
        cells = [str(fields.get(name, "-")) for name in names] + [" ".join(held)] * bool(predicates)
        table.add_row(moment(time_ms), _number(inspection.amount(amount_minor)), *map(escape, cells))
    return table


def print_letter_counts(topic: str, counts: list[ReasonCount], foreign: int) -> None:
    """Dead letters by reason."""
    console = _console()
    console.print(_letters_line(topic, sum(of_reason.letters for of_reason in counts), foreign))
    numbers = ("letters", "replayed", "failed again", "cut")
    table = _table("by reason", ["reason", *numbers, "first", "last"], right=numbers)
    for of_reason in counts:
        cells = (of_reason.letters, of_reason.replayed, of_reason.failed_again, of_reason.cut)
        times = (moment(of_reason.first_ms), moment(of_reason.last_ms))
        table.add_row(escape(of_reason.reason), *(f"{number:,}" for number in cells), *times)
    if counts:
        console.print(table)


def print_letters(topic: str, survey: Survey, shown: list[Letter], values: Values | None) -> None:
    """Single dead letters, one line each, and their values where these are given."""
    console = _console()
    console.print(_letters_line(topic, len(survey.letters), survey.foreign))
    columns = ["written", "letter", "reason", "source", "bytes", "attempt", "replayed to", "error"]
    title = f"letters{_not_shown(len(survey.letters) - len(shown))}"
    table = _table(title, columns + ["value"] * (values is not None), right=("bytes", "attempt"))
    for letter in shown:
        size = f"{letter.value_bytes:,}"
        cells = [
            moment(letter.time_ms),
            f"{letter.partition}/{letter.offset}",
            letter.reason,
            "/".join(map(str, letter.source)),
            size if letter.cut_from_bytes is None else f"{size} of {letter.cut_from_bytes:,}",
            str(survey.ledger.attempt(letter)),
            ", ".join(survey.ledger.sent_to(letter)) or "-",
            letter.error,
        ]
        if values is not None:
            cells.append(values.get(letter.place, b"").decode("utf-8", "backslashreplace"))
        table.add_row(*(escape(printable(cell)) for cell in cells))
    if shown:
        console.print(table)


def _letters_line(topic: str, letters: int, foreign: int) -> str:
    line = f"{topic}: {letters:,} dead letters"
    return escape(f"{line}; {foreign:,} records are not Tidegate's" if foreign else line)


def printable(text: str) -> str:
    r"""Text of unknown origin as a terminal may get it.

    >>> printable("caf\u00e9 \x1b[2J")
    'caf\u00e9 \\x1b[2J'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _not_shown(older: int) -> str:
    return f"; {older} older ones are not shown" if older > 0 else ""


def print_verdict(name: str, verdict: Verdict) -> None:
    """One line, and one for each problem."""
    entities = ", ".join(f"{count:,} of {entity}" for entity, count in verdict.entities.items())
    standing = f"flush {verdict.header.sequence:,}" if verdict.header else "no header"
    read = f"{verdict.rows:,} rows read ({standing}; {entities or 'no entities'}; {verdict.event_ids:,} event ids)"
    lines = [f"{name}: {'sound' if verdict.sound else 'DAMAGED'}; {read}", *(f"  {one}" for one in verdict.problems)]
    if verdict.problem_count > len(verdict.problems):
        lines.append(f"  and {verdict.problem_count - len(verdict.problems):,} more")
    _console().print(escape("\n".join(lines)), soft_wrap=True)


def print_checkpoints(checkpoints: list[Checkpoint], now_ms: int) -> None:
    """One line each."""
    table = _table(
        "checkpoints", ["sequence", "made", "age", "MiB", "stands at (partition: offset)", "whole"], ("MiB",)
    )
    for checkpoint in checkpoints:
        manifest, cells = checkpoint.manifest, [checkpoint.folder.name.removeprefix(PREFIX)]
        if manifest is not None:
            age_s = max(0, now_ms - manifest.created_at_ms) // 1000
            places = ", ".join(f"{partition}: {offset}" for partition, offset in manifest.vector.items())
            cells += [moment(manifest.created_at_ms), f"{age_s:,} s", f"{manifest.bytes / 2**20:,.1f}", places]
        else:
            cells += ["-"] * 4
        table.add_row(*map(escape, cells), escape(checkpoint.problem or "yes"))
    _console().print(table)


def print_models(entries: list[Version]) -> None:
    """One line for each version, with the first digits of its sha256; `models list --json` has all of them."""
    table = _table("models", ["model", "aliases", "since", "features", "sha256", "verified"], ("features",))
    for entry in entries:
        cells = [f"{entry.name}/{entry.version}", ", ".join(entry.aliases), moment(entry.since_ms)]
        if entry.sha256 is not None and entry.features is not None:
            cells += [str(len(entry.features)), entry.sha256[:12]]
        else:
            cells += ["-", "-"]
        table.add_row(*map(escape, cells), escape("yes" if entry.refusal is None else f"no: {entry.refusal}"))
    _console().print(table)


def print_policy_diff(diff: PolicyDiff) -> None:
    """The matrix of decisions, how often which rule holds, and a table of examples for each change."""
    console = _console()
    names = f"{diff.running} (rows) and {diff.candidate} (columns)"
    matrix = _table(escape(f"decisions of {names}"), ["", *DECISIONS, "all"], right=(*DECISIONS, "all"))
    columns = [sum(column) for column in zip(*diff.matrix, strict=True)]
    for name, row in zip((*DECISIONS, "all"), (*diff.matrix, columns), strict=True):
        matrix.add_row(name, *(f"{events:,}" for events in (*row, sum(row))))
    console.print(matrix)
    if ids := list(dict.fromkeys((*diff.running_rules, *diff.candidate_rules))):
        rules = _table("events of which a rule holds", ["rule", "running", "candidate"], ("running", "candidate"))
        for rule in ids:
            counts = (found.get(rule) for found in (diff.running_rules, diff.candidate_rules))
            rules.add_row(escape(rule), *("-" if events is None else f"{events:,}" for events in counts))
        console.print(rules)
    for change in diff.changes():
        console.print(_changed(diff, change))


def _changed(diff: PolicyDiff, change: Change) -> Table:
    was, now = change
    title = f"{DECISIONS[was]} -> {DECISIONS[now]}: {diff.matrix[was][now]:,} events; risk scores, and rules that hold"
    columns = ["event", "time", "amount", "keys", "running", "candidate"]
    table = _table(title, columns, right=("amount",))
    for example in diff.examples[change]:
        cells = [
            example.event_id,
            moment(example.event_time),
            f"{example.amount:,} {example.currency}",
            ", ".join(f"{entity} {key}" for entity, key in example.keys.items()),
            *map(_told, (example.running, example.candidate)),
        ]
        table.add_row(*(escape(printable(cell)) for cell in cells))
    return table


def _told(outcome: Outcome) -> str:
    return " ".join((str(outcome.risk_score), *outcome.rules))


def print_backtest(result: Backtest) -> None:
    """Which events, the figures of both sides, and the events that they decide otherwise."""
    console = _console()
    console.print(escape(f"candidate: {side_name(result.candidate)}\nrunning: {side_name(result.running)}"))
    console.print(escape(basis(result)))
    for note in result.notes:
        console.print(escape(f"note: {note}"))
    sides = ("running", "candidate", "difference")
    table = _table("figures", ["", *sides], right=sides)
    for line in lines(result):
        table.add_row(*map(escape, (line.title, line.running, line.candidate, line.difference)))
    console.print(table)
    numbers = ("events", "frauds", "genuine", "no label", f"fraud, {result.terms.currency}")
    table = _table("decided otherwise", ["running", "candidate", *numbers], right=numbers)
    for change in changed(result):
        counts = map(whole, (change.events, change.frauds, change.genuine, change.unlabelled))
        table.add_row(change.running, change.candidate, *counts, money(change.fraud_money))
    if result.changed:
        console.print(table)
    console.print(f"\n{escape(conclusion(result))}")


def moment(time_ms: int) -> str:
    """A time in UTC, to the millisecond where it has any."""
    text = datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
    return text.removesuffix(".000")


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:,.10g}"


def _table(title: str, columns: list[str], right: tuple[str, ...] = ()) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_COLUMNS)
