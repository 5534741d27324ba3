"""What goes wrong with models."""


class ModelError(Exception):
    """A model cannot be found, read, trusted or trained; the text says which one and what to do."""


def one_line(text: str, characters_max: int = 1_000) -> str:
    """What a library says, for a line of ours: no line breaks and nothing that a terminal would obey.

    >>> one_line("Load failed:\\n  \\x1b[1mbad name")
    'Load failed: ?[1mbad name'
    """
    words = " ".join(text.split())
    shown = "".join(character if character.isprintable() else "?" for character in words)
    return shown if len(shown) <= characters_max else shown[: characters_max - 3] + "..."
