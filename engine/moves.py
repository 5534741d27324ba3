"""Moving an alias from the command line: on the control topic for workers that run, in the store for those to come."""

from dataclasses import dataclass

from engine.assemble import load_model_of, model_store
from engine.config import Config
from engine.control import AliasMoved
from engine.errors import ConfigError, MissingTopicError, RetriableError
from engine.kafka.control import Control, send_command
from models.assignment import Assignment, newest, promoted, rolled_back
from models.errors import ModelError
from models.store import aliases, parse_reference, set_alias


@dataclass(frozen=True, slots=True)
class Move:
    """What was done. `not_sent` and `not_stored` say why a place does not have it; None where it does."""

    model: str
    alias: str
    assignment: Assignment
    not_sent: str | None
    not_stored: str | None


def promote(config: Config, reference: str, alias: str, author: str, reason: str) -> Move:
    """The alias stands for this version, once the gate has let it pass; ConfigError where it does not.

    Without a broker the store alone has it. Raises RetriableError where neither could be written.
    """
    try:
        model = load_model_of(config, config.feature_spec(), reference)
        before, not_heard = _known(config, model.name, alias)
        assignment = promoted(before, model.version, author, reason)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    return _move(config, model.name, alias, assignment, not_heard)


def roll_back(config: Config, name: str, alias: str, author: str, reason: str) -> Move:
    """The alias stands for what it stood for before. Needs the broker, or else the store; no model is loaded.

    ConfigError where it never stood for anything else, RetriableError where neither could be written.
    """
    try:
        parse_reference(f"{name}@{alias}")
        before, not_heard = _known(config, name, alias)
        assignment = rolled_back(before, author, reason)
    except ModelError as error:
        raise ConfigError(f"{name}@{alias}: {error}") from error
    return _move(config, name, alias, assignment, not_heard)


def _known(config: Config, name: str, alias: str) -> tuple[Assignment | None, str | None]:
    """What the alias stands for, and why the broker was not asked."""
    stored = aliases(model_store(config), name).get(alias)
    if not config.kafka.bootstrap:
        return stored, "no broker is configured"
    try:
        with Control(config) as control:
            control.catch_up()
            return newest(stored, control.assignment(name, alias)), None
    except (RetriableError, MissingTopicError) as error:
        return stored, str(error)


def _move(config: Config, name: str, alias: str, assignment: Assignment, not_heard: str | None) -> Move:
    """To the broker only if it was heard before: what was said there is not known otherwise."""
    not_sent, not_stored = not_heard, None
    if not_sent is None:
        try:
            send_command(
                config,
                AliasMoved(application_id=config.kafka.application_id, model=name, alias=alias, assignment=assignment),
            )
        except RetriableError as error:
            not_sent = str(error)
    try:
        set_alias(model_store(config), name, alias, assignment)
    except (ModelError, OSError) as error:
        not_stored = str(error)
    if not_sent is not None and not_stored is not None:
        raise RetriableError(f"nothing was changed: {not_sent}; {not_stored}")
    return Move(name, alias, assignment, not_sent, not_stored)
