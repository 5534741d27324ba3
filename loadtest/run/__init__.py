"""Measures what a client sees under a given load: from when an event was due to the arrival of its decision."""
