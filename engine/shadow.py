"""A challenger beside the champion: another process scores what the champion scored, and decides nothing.

worker's thread        thread of the challenger           process of the challenger (idle)
offer: bytes --------> queue of BATCHES_MAX -- socket --> gate, score, decide --> shadow-decisions
  full: dropped        waits for each answer, <---------- done
  and goes on          BATCH_S at most

Nothing that the other process does reaches the champion: it may sleep, crash, or eat its memory. It is killed where an
answer does not come in time, and started again later, each time later than before. A model that raises goes on with the
next micro-batch: a start takes a second of the processor, and whoever waits for the champion feels that.
"""

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import msgspec

from engine.config import Config
from engine.observe.metrics import Challenger
from engine.shadow_wire import Channel, Failed, Loaded, Refused, Scored, Task

_log = logging.getLogger("tidegate.shadow")

BATCHES_MAX = 8
# The gate has its own limit of time, within this one.
LOAD_S = 180.0
BATCH_S = 5.0
# How long it may take to deliver what it has at the end.
CLOSE_S = 3.0
# Of a process that was killed.
GONE_S = 1.0
# How soon it is noticed that a process has ended to which nothing was sent.
LOOK_S = 1.0
# Between a failure and the next start: the first time, and at most, which is also what a refused model waits: the
# machine may just have been too busy to try it.
RESTART_S, RESTART_S_MAX = 60.0, 900.0
# Whoever went well for so long begins anew with the first.
STEADY_S = 300.0
# Between two lines of the log about a model that has no answer to one micro-batch after another.
COMPLAINT_S = 60.0


class _RefusedError(Exception):
    """The model may not be loaded."""


class _FailedError(Exception):
    """There is no answer."""


@dataclass(frozen=True, slots=True)
class Offered:
    """One micro-batch of `events`, as `shadow_wire.encode_seen` has it."""

    events: int
    message: bytes


class Shadow:
    """One version of a model as a challenger; `counts` says what becomes of what it is offered."""

    def __init__(self, config: Config, counts: Challenger) -> None:
        """Starts loading it."""
        self.counts = counts
        self._task = Task(config, counts.label)
        self._queue: queue.Queue[Offered | None] = queue.Queue(BATCHES_MAX)
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded_at: float | None = None
        self._complains_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"shadow {counts.label}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            counts.failures += 1
            _log.error("a challenger cannot be run", extra={"model": counts.label, "why": str(error)})

    @property
    def ended(self) -> bool:
        """Whether nothing is left of it."""
        return not self._thread.is_alive()

    def offer(self, batch: Offered) -> None:
        """Has it scored if it can be; waits for nothing."""
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            self.counts.dropped += batch.events

    def begin_close(self) -> None:
        """Lets it deliver what it has taken, and end; what it has not taken is dropped. Waits for nothing."""
        self._closing.set()
        self._clear()
        self._queue.put(None)
        if self.counts.facts is None and (process := self._process) is not None:
            process.kill()

    def close(self, deadline: float) -> None:
        """The same, and waits for that until so late on the monotonic clock; then it is killed."""
        self.begin_close()
        if self.ended:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._kill()
        # What cannot even be killed, since it waits for a disk, say, is left behind.
        self._thread.join(GONE_S)

    def _clear(self) -> None:
        """Only whoever offers may call this: nobody adds to the queue meanwhile."""
        while True:
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                return
            self.counts.dropped += 0 if batch is None else batch.events

    def _run(self) -> None:
        wait_s = RESTART_S
        while not self._closing.is_set():
            try:
                self._serve()
            except _RefusedError as error:
                _log.error("a challenger is refused", extra={"model": self.counts.label, "why": str(error)})
                self._closing.wait(RESTART_S_MAX)
            except (_FailedError, OSError, EOFError, msgspec.DecodeError) as error:
                if self._closing.is_set():
                    return
                self.counts.failures += 1
                if self._loaded_at is not None and time.monotonic() - self._loaded_at > STEADY_S:
                    wait_s = RESTART_S
                _log.warning(
                    "a challenger failed",
                    extra={"model": self.counts.label, "why": _why(error), "again_after_s": wait_s},
                )
                self._closing.wait(wait_s)
                wait_s = min(2 * wait_s, RESTART_S_MAX)

    def _serve(self) -> None:
        """From the start of a process to its end; raises what that ended with, if not by `close`."""
        self._loaded_at = None
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        try:
            with theirs:
                self._process = process = _start(theirs)
            if self._closing.is_set():
                return
            self._load(channel)
            while (batch := self._next(process)) is not None:
                self._score(channel, batch)
            channel.close()
            _await_end(process, self.counts.label)
        finally:
            self.counts.facts = None
            channel.close()
            self._kill()

    def _load(self, channel: Channel) -> None:
        try:
            channel.send(self._task, BATCH_S)
            answer = channel.answer(LOAD_S)
        except TimeoutError as error:
            raise _FailedError(f"it was not loaded within {LOAD_S:g} s") from error
        if isinstance(answer, Refused):
            raise _RefusedError(answer.why)
        if not isinstance(answer, Loaded):
            raise _FailedError("it gave another answer than was asked for")
        _log.info("a challenger scores beside the champion", extra={"model": self.counts.label})
        self.counts.facts, self._loaded_at = answer.facts, time.monotonic()

    def _next(self, process: "subprocess.Popen[bytes]") -> Offered | None:
        """Waits for what to score; None at the end."""
        while True:
            try:
                return self._queue.get(timeout=LOOK_S)
            except queue.Empty:
                if process.poll() is not None:
                    raise _FailedError("its process ended") from None

    def _score(self, channel: Channel, batch: Offered) -> None:
        try:
            channel.send_encoded(batch.message, BATCH_S)
            answer = channel.answer(BATCH_S)
        except (OSError, EOFError, msgspec.DecodeError):
            self.counts.failed += batch.events
            raise
        if isinstance(answer, Scored):
            self.counts.scored += batch.events
            self.counts.undelivered += answer.undelivered
            return
        self.counts.failed += batch.events
        if not isinstance(answer, Failed):
            raise _FailedError("it gave another answer than was asked for")
        self.counts.failures += 1
        self._complain(answer.why)

    def _complain(self, why: str) -> None:
        if (now := time.monotonic()) >= self._complains_at:
            self._complains_at = now + COMPLAINT_S
            _log.warning("a challenger has no answer", extra={"model": self.counts.label, "why": why})

    def _kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()
            try:
                process.wait(GONE_S)
            except subprocess.TimeoutExpired:
                _log.warning("a challenger cannot be killed", extra={"model": self.counts.label, "pid": process.pid})


def _await_end(process: "subprocess.Popen[bytes]", label: str) -> None:
    try:
        process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        _log.warning("a challenger did not end, and is killed", extra={"model": label})


def _start(connection: socket.socket) -> "subprocess.Popen[bytes]":
    descriptor = connection.fileno()
    return subprocess.Popen(
        # -P: nothing is imported from the folder that the worker runs in.
        [sys.executable, "-P", "-m", "engine.shadow_child", str(descriptor)],
        # Our settings reach it with its task; passwords may be among them, and an environment can be read by others.
        env={name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")},
        # Never written to: it ends when we do, and so tells the process.
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        # Ctrl-C is for the worker; and a session is what `shadow_child` needs to get out of the way.
        start_new_session=True,
    )


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {BATCH_S:g} s"
    return "its process ended" if isinstance(error, EOFError | ConnectionError) else str(error)
