"""The figures of a run in words: what the terminal and the page say alike."""

from loadtest.run.outcome import Outcome

MIB = 1 << 20
Row = tuple[str, str]


def plan_text(outcome: Outcome) -> str:
    """What was sent when, and to whom."""
    pieces = []
    for piece in outcome.plan[1:] if outcome.warm_up_s else outcome.plan:
        first, last = piece["from"], piece["to"]
        rate = f"{first:,.0f}" if first == last else f"{first:,.0f} to {last:,.0f}"
        pieces.append(f"{piece['seconds']:g} s at {rate}")
    return (
        f"{', '.join(pieces)} events/s, after {outcome.warm_up_s:g} s of warm-up; delivery "
        f"{outcome.delivery.replace('_', ' ')}, read by a {outcome.isolation} consumer"
    )


def conclusion(outcome: Outcome) -> str:
    """The run in one sentence."""
    if not outcome.valid:
        return "The generator fell behind its plan: the latencies are not those of the planned load."
    if outcome.missing or outcome.duplicated:
        return f"{outcome.missing:,} events without a decision, {outcome.duplicated:,} decided again."
    return (
        f"Every one of {outcome.sent:,} records has its outcome; half of the decisions came within "
        f"{ms(outcome.p50_ms)}, 99 of 100 within {ms(outcome.p99_ms)}."
    )


def figures(outcome: Outcome) -> list[Row]:
    """Title and value of everything that is one number."""
    rows = [
        ("sent", f"{outcome.sent:,}"),
        ("of these sent again, broken", f"{outcome.sent_again:,}, {outcome.sent_broken:,}"),
        ("decided", f"{outcome.decided:,}"),
        ("dead letters", f"{outcome.dead_letters:,}"),
        ("decided again, missing", f"{outcome.duplicated:,}, {outcome.missing:,}"),
        ("counted (after the warm-up)", f"{outcome.counted:,}"),
        ("decisions a second", f"{outcome.events_per_second:,.1f}"),
        ("p50", ms(outcome.p50_ms)),
        ("p90", ms(outcome.p90_ms)),
        ("p99", ms(outcome.p99_ms)),
        ("p99.9", ms(outcome.p999_ms)),
        ("slowest", ms(outcome.max_ms)),
        ("latest that an event was sent", ms(outcome.send_delay_ms_max)),
        ("alerts", f"{outcome.alerts:,}"),
    ]
    if outcome.alert_precision is not None:
        rows.append(("of these about an attack", f"{100 * outcome.alert_precision:.1f} %"))
    if outcome.cpu_us_per_event is not None:
        rows.append(("the worker's CPU per event", f"{outcome.cpu_us_per_event:.1f} us"))
    if outcome.rss_bytes_first is not None and outcome.rss_bytes_last is not None:
        first, last = outcome.rss_bytes_first, outcome.rss_bytes_last
        rows.append(
            (
                "its memory, first and last",
                f"{first / MIB:,.0f} MiB, {last / MIB:,.0f} MiB ({100 * (last / first - 1):+.1f} %)",
            )
        )
    if outcome.lag_events_max is not None:
        rows.append(("largest lag seen, events", f"{outcome.lag_events_max:,}"))
    if outcome.aborts is not None:
        rows.append(("aborted transactions", f"{outcome.aborts:,}"))
    return rows


def ms(value: float | None) -> str:
    """Milliseconds as people read them."""
    return "none" if value is None else f"{value:,.1f} ms"
