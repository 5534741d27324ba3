"""What can go wrong with a measurement, as against what is measured."""


class LoadTestError(Exception):
    """The load could not be driven or its outcome not be read; the text is one line for a person."""
