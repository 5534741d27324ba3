"""Who pays, where, and with what: the cards, merchants, devices and addresses of one stream."""

from dataclasses import dataclass

import numpy as np

from loadtest.columns import Float64, Int8, Int32, Int64
from loadtest.settings import TrafficSettings

# Name, median amount in EUR, sigma of its logarithm, share paid at a terminal, share of the merchants.
CATEGORY_TABLE = (
    ("groceries", 28.0, 0.7, 0.85, 0.20),
    ("restaurants", 24.0, 0.6, 0.80, 0.14),
    ("transit", 2.6, 0.4, 0.60, 0.08),
    ("fuel", 52.0, 0.35, 0.95, 0.08),
    ("digital", 5.0, 0.9, 0.00, 0.12),
    ("fashion", 45.0, 0.7, 0.35, 0.10),
    ("electronics", 140.0, 0.9, 0.25, 0.08),
    ("travel", 260.0, 0.8, 0.05, 0.05),
    ("tickets", 65.0, 0.15, 0.10, 0.05),
    ("health", 22.0, 0.7, 0.70, 0.07),
    ("luxury", 550.0, 0.4, 0.40, 0.03),
)
CATEGORIES = tuple(row[0] for row in CATEGORY_TABLE)
CATEGORY_SIGMA = np.array([row[2] for row in CATEGORY_TABLE])
CATEGORY_POS_SHARE = np.array([row[3] for row in CATEGORY_TABLE])

USUAL_SHARES = np.cumsum([0.85, 0.12, 0.03])  # a card's first, second and third device or address
COUNTRY_SHARES = np.cumsum([0.5, 0.12, 0.1, 0.08, 0.07, 0.05, 0.05, 0.03])
# Issuer prefixes that card schemes and gateways reserve for tests; no real card begins with them.
TEST_PREFIXES = np.array([400000, 411111, 424242, 510510, 520082, 555555, 222300])
STORE_TERMINALS = 8

DEVICE_BITS, IP_BITS = 40, 24
DEVICE_ATTACKERS = 1 << 36
IP_STORES, IP_ATTACKERS = 1 << 22, 1 << 23


@dataclass(frozen=True, slots=True)
class Population:
    """Tables by index: `card_*[cards]`, `merchant_*[merchants]`; `card_devices`, `card_ips` are [cards, 3].

    `*_cumulative` ascend to 1: a uniform number finds its card or merchant by binary search.
    `merchant_terminals` is how many terminals a merchant has, numbered from `merchant_first_terminal`.
    """

    card_cumulative: Float64
    card_numbers: Int64
    card_countries: Int8
    card_devices: Int64
    card_ips: Int32
    merchant_cumulative: Float64
    merchant_categories: Int8
    merchant_log_amounts: Float64
    merchant_terminals: Int64
    merchant_first_terminal: Int64


def populate(settings: TrafficSettings) -> Population:
    """Draws the tables; another seed has other cards with other numbers."""
    rng = np.random.default_rng((settings.seed, 0))
    cards, merchants = settings.cards, settings.merchants
    ip_cumulative = zipf_cumulative(settings.ips, settings.ip_exponent)
    categories = rng.choice(len(CATEGORIES), merchants, p=[row[4] for row in CATEGORY_TABLE]).astype(np.int8)
    medians = np.log([row[1] for row in CATEGORY_TABLE])
    merchant_cumulative = zipf_cumulative(merchants, settings.merchant_exponent)
    # So many terminals that one is busy every few seconds at most, however large the merchant.
    terminals = 1 + np.ceil(np.diff(merchant_cumulative, prepend=0.0) * settings.events_per_second * 4).astype(np.int64)
    return Population(
        card_cumulative=zipf_cumulative(cards, settings.card_exponent),
        card_numbers=_card_numbers(rng, cards),
        card_countries=np.searchsorted(COUNTRY_SHARES[:-1], rng.random(cards)).astype(np.int8),
        card_devices=device_id(rng.integers(0, settings.devices, (cards, 3))),
        card_ips=ip_number(np.searchsorted(ip_cumulative, rng.random((cards, 3)))),
        merchant_cumulative=merchant_cumulative,
        merchant_categories=categories,
        merchant_log_amounts=medians[categories] + rng.normal(0.0, 0.35, merchants),
        merchant_terminals=terminals,
        merchant_first_terminal=np.cumsum(terminals) - terminals + settings.devices,
    )


def zipf_cumulative(n: int, exponent: float) -> Float64:
    """Cumulative probabilities of ranks 1..n under a bounded Zipf law; the last is exactly 1."""
    cumulative: Float64 = np.cumsum(np.arange(1, n + 1, dtype=np.float64) ** -exponent)
    cumulative /= cumulative[-1]
    return cumulative


def device_id(index: Int64) -> Int64:
    """Scatters device indices over 40 bits, one to one, so that an id does not tell whose device it is."""
    scattered = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (scattered & np.uint64((1 << DEVICE_BITS) - 1)).astype(np.int64)


def ip_number(index: Int64) -> Int32:
    """Scatters address indices over the 24 bits of 10.0.0.0/8, one to one."""
    scattered = index.astype(np.uint64) * np.uint64(0x9E3779B1)
    return (scattered & np.uint64((1 << IP_BITS) - 1)).astype(np.int32)


def _card_numbers(rng: np.random.Generator, cards: int) -> Int64:
    """Distinct 16-digit numbers: a test prefix, nine digits, and the check digit of ISO/IEC 7812 (Luhn)."""
    step = 10**9 // cards
    bodies = np.arange(cards, dtype=np.int64) * step + rng.integers(0, step, cards)
    digits15 = TEST_PREFIXES[rng.integers(0, len(TEST_PREFIXES), cards)] * 10**9 + rng.permutation(bodies)
    digits = digits15[:, None] // 10 ** np.arange(15, dtype=np.int64) % 10
    doubled = digits[:, 0::2] * 2
    total = (doubled // 10 + doubled % 10).sum(axis=1) + digits[:, 1::2].sum(axis=1)
    numbers: Int64 = digits15 * 10 + -total % 10
    return numbers
