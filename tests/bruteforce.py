"""Features as a data scientist would compute them, with polars, beside those of the offline path.

polars' rolling windows are those of the features, (t - W, t], but for ties: they hold every event of time t, where a
feature holds those that were accepted before. So rows whose time the entity has more than once are compared with the
oracle instead.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from engine.config import Config
from features.durations import duration_ms
from tests.build import MINOR_PER_MAJOR
from tests.oracle.events import Event
from tests.oracle.windows import features_of

WINDOWS = ("1h", "24h", "7d", "30d")
COUNTED = {"card": "merchant", "merchant": "card"}
AMOUNTS = ("count", "sum.amount", "mean.amount", "std.amount", "min.amount", "max.amount")
# Everything else must be equal.
RELATIVE_ERROR_MAX = {"mean.amount": 1e-9, "std.amount": 1e-9}


def entities_toml() -> str:
    """The entities of a configuration whose backfill can be compared."""
    return "\n".join(
        f"[entities.{entity}]\nwindows = {list(WINDOWS)}\naggregates = {[*AMOUNTS, f'distinct.{other}']}"
        for entity, other in COUNTED.items()
    )


@dataclass
class Found:
    """One entity and window. `mismatches`: by aggregate, rows that are flagged exact and differ; `tied`: by oracle."""

    entity: str
    window: str
    rows: int = 0
    exact: int = 0
    tied: int = 0
    compared: int = 0
    mismatches: dict[str, int] = field(default_factory=dict)

    @property
    def exact_share(self) -> float:
        return self.exact / self.rows


def compare(out: Path, events: pl.DataFrame, config: Config) -> list[Found]:
    """Compares what a backfill wrote with a brute force over `events`: event_id, time_ms, minor, card, merchant."""
    written = pl.read_parquet(out).join(events, on="event_id", how="left", maintain_order="left")
    assert (written["event_time"] == written["time_ms"]).all()
    found = []
    for entity, other in COUNTED.items():
        ordered = written.with_row_index("row").sort(entity, "time_ms", "row")
        tied = ordered.select(pl.len().over(entity, "time_ms") > 1).to_series().to_numpy()
        by_oracle = _by_oracle(written, ordered["row"].to_numpy()[tied], config)
        for window in WINDOWS:
            brute = rolled(ordered, entity, other, window)
            assert (brute[entity] == ordered[entity]).all()
            assert (brute["moment"].cast(pl.Int64) == ordered["time_ms"]).all()
            exact = ordered[f"{entity}.exact.{window}"].to_numpy()
            one = Found(entity, window, len(ordered), int(exact.sum()), int((tied & exact).sum()))
            for aggregate in (*AMOUNTS, f"distinct.{other}"):
                name = f"{entity}.{aggregate}.{window}"
                values, wanted = _floats(ordered[name]), _floats(brute[aggregate])
                wanted[tied] = [row[name] for row in by_oracle]
                one.compared += one.exact
                wrong = int(np.count_nonzero(exact & ~_equal(values, wanted, RELATIVE_ERROR_MAX.get(aggregate, 0.0))))
                if wrong:
                    one.mismatches[aggregate] = wrong
            found.append(one)
    return found


def rolled(ordered: pl.DataFrame, entity: str, other: str, window: str) -> pl.DataFrame:
    """One row for each of `ordered`, which is sorted by entity and time, in the same order."""
    minor = pl.col("minor")
    moments = ordered.with_columns(moment=pl.col("time_ms").cast(pl.Datetime("ms")))
    rolling = moments.rolling("moment", period=f"{duration_ms(window)}ms", closed="right", group_by=entity)
    rows = rolling.agg(
        minor.sum().alias("sum"),
        minor.min().alias("min"),
        minor.max().alias("max"),
        # Two passes, the mean first, so that equal amounts give 0.
        ((minor - minor.mean()) ** 2).sum().alias("squares"),
        pl.len().cast(pl.Int64).alias("count"),
        pl.col(other).drop_nulls().n_unique().alias(f"distinct.{other}"),
    )
    # Groups come in any order; rows of one entity and time are alike.
    rows = rows.sort(entity, "moment")
    count, total = rows["count"].to_numpy(), rows["sum"].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(rows["squares"].to_numpy() / (count - 1)) / MINOR_PER_MAJOR
    # numpy's division, since polars multiplies by the reciprocal of a constant, which is not the same to the last bit.
    return rows.select(entity, "moment", "count", f"distinct.{other}").with_columns(
        pl.Series("sum.amount", total / MINOR_PER_MAJOR),
        pl.Series("mean.amount", total / (count * MINOR_PER_MAJOR)),
        pl.Series("std.amount", np.where(count > 1, deviation, np.nan)),
        pl.Series("min.amount", rows["min"].to_numpy() / MINOR_PER_MAJOR),
        pl.Series("max.amount", rows["max"].to_numpy() / MINOR_PER_MAJOR),
    )


def markdown(found: list[Found]) -> str:
    """A table of what was compared."""
    lines = [
        "| entity | window | rows | exact | exact share | of them tied: by the oracle | values compared | mismatches |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {one.entity} | {one.window} | {one.rows:,} | {one.exact:,} | {one.exact_share:.4%} | {one.tied:,} "
        f"| {one.compared:,} | {', '.join(f'{name}: {rows}' for name, rows in one.mismatches.items()) or '0'} |"
        for one in found
    ]
    return "\n".join(lines)


def _by_oracle(written: pl.DataFrame, rows: np.ndarray, config: Config) -> list[dict[str, float]]:
    """The oracle's values of these rows of `written`, which is in the order of acceptance."""
    spec, names = config.feature_spec(), list(COUNTED)
    columns = {name: written[name].to_list() for name in ("time_ms", "minor", *names)}

    def event(row: int) -> Event:
        return Event(columns["time_ms"][row], row, columns["minor"][row], {name: columns[name][row] for name in names})

    values = []
    for row in rows.tolist():
        same = (written["card"] == columns["card"][row]) | (written["merchant"] == columns["merchant"][row])
        before = [event(at) for at in np.flatnonzero(same.to_numpy()[:row]).tolist()]
        values.append(features_of(event(row), before, spec, MINOR_PER_MAJOR))
    return values


def _floats(column: pl.Series) -> np.ndarray:
    """A column as float64, null as NaN."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy(writable=True)


def _equal(values: np.ndarray, wanted: np.ndarray, error_max: float) -> np.ndarray:
    both_null = np.isnan(values) & np.isnan(wanted)
    return (values == wanted) | both_null | (np.abs(values - wanted) <= error_max * np.abs(wanted))
