"""What a stream of synthetic traffic looks like: its pace, population, and share of fraud and poison."""

from dataclasses import dataclass, replace
from zlib import crc32

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """A stream, fully determined by these values: the same settings give the same events on every machine.

    The defaults are the demo's: real seconds at 5,000 events/s. So many cards share the stream that most of
    them pay once or twice in half a minute; attacks last seconds. `spread` slows this down to days.

    `*_exponent` is the s of a Zipf law, rank^-s; 0 is uniform. Shares are fractions of all events.
    """

    seed: int = 1
    start_time_ms: int = 1_735_689_600_000
    events_per_second: float = 5_000.0
    diurnal_amplitude: float = 0.0

    cards: int = 200_000
    merchants: int = 3_000
    devices: int = 300_000
    ips: int = 150_000
    card_exponent: float = 0.3
    merchant_exponent: float = 0.8
    ip_exponent: float = 0.5
    # Of the honest purchases, the share of one card beside its own by Zipf, and that at one merchant.
    hot_card_share: float = 0.0
    hot_merchant_share: float = 0.0

    # A card that paid pays again at once with this probability, after a mean of `burst_gap_s`.
    burst_probability: float = 0.05
    burst_gap_s: float = 3.0

    attack_span_s: float = 8.0
    card_testing_share: float = 0.003
    account_takeover_share: float = 0.002
    merchant_collusion_share: float = 0.002

    late_share: float = 0.0
    late_mean_s: float = 30.0
    duplicate_share: float = 0.0
    duplicate_mean_s: float = 2.0
    poison_share: float = 0.0

    # So long after the first event prices rise: honest purchases cost so many times as much from then on.
    shift_after_s: float | None = None
    shift_amount_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed} must not be negative")
        for name in ("cards", "merchants", "devices", "ips"):
            if not 1 <= getattr(self, name) <= 2**22:
                raise ValueError(f"{name}: {getattr(self, name)} must be within 1..{2**22}")
        for name in ("events_per_second", "burst_gap_s", "attack_span_s", "late_mean_s", "duplicate_mean_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} must be positive")
        if not self.shift_amount_factor > 0:
            raise ValueError(f"shift_amount_factor: {self.shift_amount_factor} must be positive")
        for name in (
            "diurnal_amplitude",
            "late_share",
            "duplicate_share",
            "poison_share",
            "burst_probability",
            "hot_card_share",
            "hot_merchant_share",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} must be within 0..1, 1 excluded")
        if not 0 <= self.attack_share <= 0.5:
            raise ValueError(
                f"card_testing_share + account_takeover_share + merchant_collusion_share: "
                f"{self.attack_share} must be within 0..0.5"
            )

    @property
    def run(self) -> int:
        """What the event ids of the stream are told apart by, of 32 bits."""
        return crc32(f"{self.seed}/{self.start_time_ms}".encode())

    @property
    def attack_share(self) -> float:
        """The fraction of events that belong to an attack."""
        return self.card_testing_share + self.account_takeover_share + self.merchant_collusion_share


def spread(settings: TrafficSettings, events: int, days: float) -> TrafficSettings:
    """The same behaviour at the pace of real life: `events` over `days`, fewer cards, slower attacks.

    A card then pays about three times a day, attacks last half an hour, and the rate follows the hour.
    """
    cards = max(50, round(events / days / 3))
    return replace(
        settings,
        events_per_second=events / (days * DAY_S),
        diurnal_amplitude=0.7,
        cards=cards,
        merchants=max(20, cards // 5),
        devices=max(50, cards * 3 // 2),
        ips=max(50, cards * 3 // 4),
        burst_gap_s=120.0,
        attack_span_s=1_800.0,
        late_mean_s=1_800.0,
        duplicate_mean_s=60.0,
    )
