"""`[control]` as it is written."""

import re
from fnmatch import fnmatchcase
from typing import TypeAlias

import msgspec

from features.durations import duration_ms

LISTEN = re.compile(r"[^:]+:(\d{1,5})")
PORT_MAX = 65_535
# Of the longest drift window; more are more memory than the figures are worth.
DRIFT_BUCKETS_MAX = 2_880

Share: TypeAlias = float


def _check_durations(section: msgspec.Struct, *keys: str) -> None:
    for key in keys:
        try:
            duration_ms(getattr(section, key))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error


def _check_shares(section: msgspec.Struct, *keys: str) -> None:
    for key in keys:
        if not 0 <= getattr(section, key) <= 1:
            raise ValueError(f"{key}: {getattr(section, key)} must be within 0..1")


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Labels against decisions.

    `window`: decisions of the last so many days count, whenever their labels come. `keep`: how long a decision waits
    for its label. `label_wait`: how long a label waits for a decision that may never have been sampled. Below
    `precision_min` or `recall_min`, with the whole 95% interval, quality is lost; 0 asks for nothing.
    """

    window: str = "30d"
    keep: str = "90d"
    label_wait: str = "1d"
    cards: int = 100
    precision_min: Share = 0.0
    recall_min: Share = 0.0

    def __post_init__(self) -> None:
        _check_durations(self, "window", "keep", "label_wait")
        _check_shares(self, "precision_min", "recall_min")
        if self.cards < 1:
            raise ValueError(f"cards: {self.cards} must be at least 1")
        if duration_ms(self.keep) < duration_ms(self.window):
            raise ValueError(f"keep: {self.keep!r} must be at least window, {self.window!r}")


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Telemetry against the manifest's reference, over each of `windows`, looked at every `bucket`.

    An alarm is raised after `raise_after` looks in a row that ask for it, and ends after `clear_after` that do not.
    `ignore`: features and fields, with `*` and `?`, that raise none.
    """

    windows: list[str] = msgspec.field(default_factory=lambda: ["30s", "10m", "1h"])
    bucket: str = "10s"
    events_min: int = 1_000
    psi_max: float = 0.25
    null_share_excess_max: Share = 0.05
    unseen_share_max: Share = 0.05
    out_of_range_share_max: Share = 0.02
    freshness_max: str = "15m"
    raise_after: int = 2
    clear_after: int = 6
    ignore: list[str] = []

    def __post_init__(self) -> None:
        _check_durations(self, "bucket", "freshness_max")
        _check_shares(self, "null_share_excess_max", "unseen_share_max", "out_of_range_share_max")
        if not self.windows:
            raise ValueError("windows: at least one is needed")
        for window in self.windows:
            try:
                wide_ms = duration_ms(window)
            except ValueError as error:
                raise ValueError(f"windows: {error}") from error
            if wide_ms % self.bucket_ms or not 1 <= wide_ms // self.bucket_ms <= DRIFT_BUCKETS_MAX:
                raise ValueError(
                    f"windows: {window!r} must be a multiple of bucket, {self.bucket!r}, and at most "
                    f"{DRIFT_BUCKETS_MAX} of them"
                )
        if self.psi_max <= 0:
            raise ValueError(f"psi_max: {self.psi_max} must be positive")
        for key in ("events_min", "raise_after", "clear_after"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)} must be at least 1")

    @property
    def bucket_ms(self) -> int:
        """How long telemetry is summed up before it is looked at."""
        return duration_ms(self.bucket)

    def ignores(self, name: str) -> bool:
        """Whether this feature or field raises no alarm."""
        return any(fnmatchcase(name, pattern) for pattern in self.ignore)

    @property
    def windows_ms(self) -> dict[str, int]:
        """Each window's length by its name."""
        return {window: duration_ms(window) for window in self.windows}


class Cases(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Alerts of one entity and typology that are no further apart than `window` are one case, up to `alerts_max`."""

    window: str = "24h"
    alerts_max: int = 1_000

    def __post_init__(self) -> None:
        _check_durations(self, "window")
        if self.alerts_max < 1:
            raise ValueError(f"alerts_max: {self.alerts_max} must be at least 1")


class Retraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An alarm that lasts for `after` asks for another model, at most once in `pause`."""

    after: str = "30m"
    pause: str = "1d"

    def __post_init__(self) -> None:
        _check_durations(self, "after", "pause")


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The control plane. `dir`: its tables; `partitions`: of its own topics, which never change afterwards."""

    listen: str = "127.0.0.1:9465"
    dir: str = "control-state"
    partitions: int = 4
    quality: Quality = Quality()
    drift: Drift = Drift()
    cases: Cases = Cases()
    retraining: Retraining = Retraining()

    def __post_init__(self) -> None:
        match = LISTEN.fullmatch(self.listen)
        if match is None or not 1 <= int(match[1]) <= PORT_MAX:
            raise ValueError(f"listen: {self.listen!r} must be HOST:PORT, with a port within 1..{PORT_MAX}")
        if self.partitions < 1:
            raise ValueError(f"partitions: {self.partitions} must be at least 1")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host, int(port)
