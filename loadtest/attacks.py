"""Fraud with a known answer: the kinds of attack, and purchases made into traffic."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from loadtest.columns import ATTACK_KINDS, COUNTRIES, NOT_POISON, Bool, Int64, Traffic
from loadtest.population import DEVICE_ATTACKERS, IP_ATTACKERS, Population, device_id, ip_number
from loadtest.settings import TrafficSettings

SMALL_AMOUNT_MINOR = 200  # card testing stays below
ATTACKER_SLOTS = 256  # devices and addresses that one attack can use


@dataclass(frozen=True, slots=True)
class Stream:
    """What stays the same from the first event of a stream to the last; `run` goes into its event ids."""

    settings: TrafficSettings
    population: Population
    run: int


@dataclass(slots=True)
class Purchases:
    """What an attack decides about its n events; everything else follows from the population.

    `cards` and `merchants` are indices, `devices` and `ips` ids as they are rendered, amounts minor units.
    """

    times_ms: Int64
    cards: Int64
    merchants: Int64
    devices: Int64
    ips: Int64
    amounts_minor: Int64


def card_testing(rng: np.random.Generator, population: Population, span_ms: float, attack_id: int) -> Purchases:
    """Stolen card numbers are tried out with small amounts, 25 to 60 of them, below 2.00 each.

    Half of the attacks go through one merchant, each card from another device and address; the other half run
    all cards from one device and two addresses, over several merchants.
    """
    n = int(rng.integers(25, 61))
    many_devices = rng.random() < 0.5
    slots = rng.permutation(ATTACKER_SLOTS)[:n] if many_devices else np.zeros(n, np.int64)
    merchants = rng.integers(0, len(population.merchant_categories), 4)
    return Purchases(
        times_ms=_times(rng, n, span_ms),
        cards=rng.integers(0, len(population.card_numbers), n),
        merchants=np.full(n, merchants[0]) if many_devices else rng.choice(merchants, n),
        devices=_attacker_devices(attack_id, slots),
        ips=_attacker_ips(attack_id, slots if many_devices else rng.integers(0, 2, n)),
        amounts_minor=rng.integers(50, SMALL_AMOUNT_MINOR, n),
    )


def account_takeover(rng: np.random.Generator, population: Population, span_ms: float, attack_id: int) -> Purchases:
    """One card, suddenly on a new device and address, buys 4 to 9 expensive things at different merchants."""
    n = int(rng.integers(4, 10))
    return Purchases(
        times_ms=_times(rng, n, span_ms),
        cards=np.full(n, rng.integers(0, len(population.card_numbers))),
        merchants=rng.integers(0, len(population.merchant_categories), n),
        devices=_attacker_devices(attack_id, np.zeros(n, np.int64)),
        ips=_attacker_ips(attack_id, np.zeros(n, np.int64)),
        amounts_minor=np.exp(rng.normal(np.log(45_000), 0.5, n)).astype(np.int64),
    )


def merchant_collusion(rng: np.random.Generator, population: Population, span_ms: float, attack_id: int) -> Purchases:
    """A merchant books 18 to 40 similar high amounts on the same 4 to 8 cards, from their own devices."""
    n = int(rng.integers(18, 41))
    ring = rng.integers(0, len(population.card_numbers), int(rng.integers(4, 9)))
    cards = rng.choice(ring, n)
    price_minor = rng.integers(20_000, 120_000)
    return Purchases(
        times_ms=_times(rng, n, span_ms),
        cards=cards,
        merchants=np.full(n, rng.integers(0, len(population.merchant_categories))),
        devices=population.card_devices[cards, 0],
        ips=population.card_ips[cards, 0].astype(np.int64),
        amounts_minor=(price_minor * rng.uniform(0.97, 1.03, n)).astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class AttackKind:
    """How to stage a kind of attack, its mean number of events, and its share of the stream."""

    code: int
    stage: Callable[[np.random.Generator, Population, float, int], Purchases]
    mean_events: float
    share: Callable[[TrafficSettings], float]


KINDS = (
    AttackKind(ATTACK_KINDS.index("card_testing"), card_testing, 42.5, lambda s: s.card_testing_share),
    AttackKind(ATTACK_KINDS.index("account_takeover"), account_takeover, 6.5, lambda s: s.account_takeover_share),
    AttackKind(
        ATTACK_KINDS.index("merchant_collusion"),
        merchant_collusion,
        29.0,
        lambda s: s.merchant_collusion_share,
    ),
)


def stage_attack(rng: np.random.Generator, stream: Stream, kind: AttackKind, start_ms: int, attack_id: int) -> Traffic:
    """The events of one attack that begins at `start_ms`, in time order, with their ground truth."""
    span_ms = stream.settings.attack_span_s * 1_000 * rng.uniform(0.6, 1.4)
    purchases = kind.stage(rng, stream.population, span_ms, attack_id)
    purchases.times_ms += start_ms
    traffic = book(rng, stream, purchases, np.zeros(len(purchases.times_ms), np.bool_))
    traffic.attack_kinds[:] = kind.code
    traffic.attack_ids[:] = attack_id
    return traffic


def book(rng: np.random.Generator, stream: Stream, purchases: Purchases, pos: Bool) -> Traffic:
    """Purchases as traffic, honest until said otherwise; `pos` marks those at a terminal."""
    population = stream.population
    n = len(purchases.times_ms)
    home = population.card_countries[purchases.cards]
    abroad = rng.integers(0, len(COUNTRIES), n, np.int8)
    second = rng.random(n) < 0.5  # of the two entry modes of a channel
    return Traffic(
        run=stream.run,
        numbers=np.zeros(n, np.int64),
        times_ms=purchases.times_ms,
        send_times_ms=purchases.times_ms.copy(),
        amounts_minor=np.maximum(purchases.amounts_minor, 1),
        card_numbers=population.card_numbers[purchases.cards],
        merchants=purchases.merchants.astype(np.int32),
        devices=purchases.devices,
        ips=purchases.ips.astype(np.int32),
        categories=population.merchant_categories[purchases.merchants],
        countries=np.where(rng.random(n) < 0.97, home, abroad),
        channels=pos.astype(np.int8),
        entry_modes=(pos * 2 + second).astype(np.int8),
        attack_kinds=np.zeros(n, np.int8),
        attack_ids=np.full(n, -1, np.int64),
        duplicates=np.zeros(n, np.bool_),
        poison_kinds=np.full(n, NOT_POISON, np.int8),
    )


def _times(rng: np.random.Generator, n: int, span_ms: float) -> Int64:
    return np.sort(rng.uniform(0.0, span_ms, n)).astype(np.int64)


def _attacker_devices(attack_id: int, slots: Int64) -> Int64:
    return device_id(DEVICE_ATTACKERS + attack_id * ATTACKER_SLOTS + slots)


def _attacker_ips(attack_id: int, slots: Int64) -> Int64:
    return ip_number(IP_ATTACKERS + (attack_id * ATTACKER_SLOTS + slots) % IP_ATTACKERS).astype(np.int64)
