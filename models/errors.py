"""What goes wrong with models."""


class ModelError(Exception):
    """A model cannot be found, read, trusted or trained; the text says which one and what to do."""
