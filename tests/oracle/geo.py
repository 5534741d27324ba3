"""Distances on a sphere: great-circle, from positions in units of 1e-7 degrees."""

import math

EARTH_RADIUS_KM = 6371.0088
HALF_TURN = 1_800_000_000  # 180 degrees


def distance_km(one: tuple[int, int], other: tuple[int, int]) -> float:
    """The great-circle distance between two positions (latitude, longitude).

    The haversine formula loses digits towards the far side of the globe, so from a quarter turn on the distance to the
    antipode is taken instead. Differences are of whole numbers, so that nothing is lost between neighbours either.
    """
    near = _haversine(one, other)
    if near < math.pi / 2:
        return EARTH_RADIUS_KM * near
    latitude, longitude = other
    return EARTH_RADIUS_KM * (math.pi - _haversine(one, (-latitude, longitude + HALF_TURN)))


def speed_kmh(one: tuple[int, int], other: tuple[int, int], apart_ms: int) -> float:
    """The speed that it takes to get from one to the other; as if at least a second had passed."""
    return distance_km(one, other) * 3_600_000 / max(apart_ms, 1_000)


def _haversine(one: tuple[int, int], other: tuple[int, int]) -> float:
    """The angle between two positions, in radians."""
    half_latitude = math.radians((other[0] - one[0]) / 1e7) / 2
    around = (other[1] - one[1] + HALF_TURN) % (2 * HALF_TURN) - HALF_TURN
    half_longitude = math.radians(around / 1e7) / 2
    cosines = math.cos(math.radians(one[0] / 1e7)) * math.cos(math.radians(other[0] / 1e7))
    square = math.sin(half_latitude) ** 2 + cosines * math.sin(half_longitude) ** 2
    return 2 * math.asin(min(1.0, math.sqrt(square)))
