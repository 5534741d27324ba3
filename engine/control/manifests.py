"""What the manifests of the models in the store expect, each read once."""

import logging

from engine.assemble import model_store
from engine.config import Config
from engine.control.drift import Expected
from models.errors import ModelError
from models.manifest import read_manifest
from models.store import MANIFEST_FILE, parse_reference, resolve

_log = logging.getLogger("tidegate.control")


class Manifests:
    """By the name that telemetry gives a model: name/version, or a version of the champion."""

    def __init__(self, config: Config) -> None:
        self._store = model_store(config)
        self._champion = parse_reference(config.models.champion).name
        self._known: dict[str, Expected] = {}
        self._refused: set[str] = set()

    def expected(self, model: str) -> Expected | None:
        """None where there is no such model: it may have been removed, or not be copied here yet."""
        if model in self._known:
            return self._known[model]
        try:
            located = resolve(self._store, model if "/" in model else f"{self._champion}/{model}")
            self._known[model] = Expected(read_manifest(located.directory / MANIFEST_FILE))
        except ModelError as error:
            if model not in self._refused:
                self._refused.add(model)
                _log.warning("drift of a model is not known", extra={"model": model, "why": str(error)})
            return None
        return self._known[model]
