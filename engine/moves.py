"""Moving an alias from the command line: on the control topic for workers that run, in the store for those to come."""

from dataclasses import dataclass

from engine.assemble import load_model_of, model_store
from engine.config import Config
from engine.directives import AliasMoved
from engine.errors import ConfigError, MissingTopicError, RetriableError
from engine.kafka.control import Control, send_commands
from models.assignment import (
    ALIASES,
    CANARY,
    Assignment,
    canary_of,
    ended,
    later_than,
    newest,
    promoted,
    rolled_back,
)
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


@dataclass(frozen=True, slots=True)
class _Known:
    """What each alias of a model stands for, and why the broker was not asked; None where it was."""

    assignments: dict[str, Assignment | None]
    not_heard: str | None


def promote(
    config: Config, reference: str, alias: str, author: str, reason: str, *, share: float | None = None
) -> Move:
    """The alias stands for this version, once the gate has let it pass; ConfigError where it does not.

    `share` is of the canary alone, and which it needs. Without a broker the store alone has it. Raises RetriableError
    where neither could be written.
    """
    if (share is not None) != (alias == CANARY):
        raise ConfigError(f"a share of the entities (--share) is what the alias {CANARY} needs, and no other has")
    try:
        if alias == CANARY:
            _check_has_canary(config, reference)
        model = load_model_of(config, config.feature_spec(), reference)
        known = _known(config, model.name)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    before = known.assignments[alias]
    if share is not None:
        assignment = canary_of(before, model.version, share, author, reason)
    else:
        assignment = promoted(before, model.version, author, reason)
    return _move(config, model.name, alias, assignment, known)


def _check_has_canary(config: Config, reference: str) -> None:
    """ConfigError where no worker would heed it."""
    champion = parse_reference(config.models.champion)
    if champion.alias is None or champion.name != parse_reference(reference).name:
        raise ConfigError(
            f"models.champion is {config.models.champion!r}: a canary is another version of a champion that is named "
            f"by an alias"
        )


def roll_back(config: Config, name: str, alias: str, author: str, reason: str) -> Move:
    """The alias stands for what it stood for before, the canary for nothing. Needs the broker, or else the store.

    No model is loaded. ConfigError where it never stood for anything else, RetriableError where neither could be
    written.
    """
    try:
        parse_reference(f"{name}@{alias}")
        known = _known(config, name)
        undo = ended if alias == CANARY else rolled_back
        assignment = undo(known.assignments[alias], author, reason)
    except ModelError as error:
        raise ConfigError(f"{name}@{alias}: {error}") from error
    return _move(config, name, alias, assignment, known)


def _known(config: Config, name: str) -> _Known:
    stored = aliases(model_store(config), name)
    if not config.kafka.bootstrap:
        return _Known({alias: stored.get(alias) for alias in ALIASES}, "no broker is configured")
    try:
        with Control(config) as control:
            control.catch_up()
            heard = {alias: newest(stored.get(alias), control.assignment(name, alias)) for alias in ALIASES}
    except (RetriableError, MissingTopicError) as error:
        return _Known({alias: stored.get(alias) for alias in ALIASES}, str(error))
    return _Known(heard, None)


def _move(config: Config, name: str, alias: str, assignment: Assignment, known: _Known) -> Move:
    """To the broker only if it was heard before: what was said there is not known otherwise."""
    # Whether the champion or the canary was said last says whether the canary decides.
    assignment = later_than(assignment, *known.assignments.values())
    not_sent, not_stored = known.not_heard, None
    if not_sent is None:
        try:
            application_id = config.kafka.application_id
            moved = AliasMoved(application_id=application_id, model=name, alias=alias, assignment=assignment)
            send_commands(config, [moved])
        except RetriableError as error:
            not_sent = str(error)
    try:
        set_alias(model_store(config), name, alias, assignment)
    except (ModelError, OSError) as error:
        not_stored = str(error)
    if not_sent is not None and not_stored is not None:
        raise RetriableError(f"nothing was changed: {not_sent}; {not_stored}")
    return Move(name, alias, assignment, not_sent, not_stored)
