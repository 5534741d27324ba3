"""The input of a simulated run: few cards, some events late, some twice, some poison, over several partitions."""

import random

from tests.pipelines import event, json_of

CARDS = ("41", "42", "43", "44")


def stream(seed: int, count: int) -> list[tuple[int, bytes | None]]:
    """(partition, value) of each record in the order in which they are sent; what is sent twice is on one partition."""
    draw = random.Random(seed)
    sent: list[tuple[int, bytes | None]] = []
    for number in range(count):
        card = draw.choice(CARDS)
        # A card's events come on its own partition as a rule, and on any other now and then.
        partition = CARDS.index(card) % 3 if draw.random() < 0.8 else draw.randrange(3)
        kind = draw.random()
        if kind < 0.05:
            sent.append((partition, draw.choice([None, b"", b"{", b"[]"])))
        elif kind < 0.15 and sent:
            sent.append(draw.choice(sent))
        else:
            changes = {
                "event_id": f"{seed}-{number}",
                "card": card,
                "merchant": draw.choice(["m1", "m2"]),
                "amount": draw.randint(1, 90_000) / 100,
                "event_time": 1_735_689_600_000 + 100 * number - draw.choice([0, 0, 0, 120_000]),
            }
            sent.append((partition, json_of(event(number, **changes))))
    return sent
