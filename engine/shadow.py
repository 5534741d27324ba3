"""A challenger beside the champion: another process scores what the champion scored, and decides nothing.

worker's thread        thread of the challenger           process of the challenger (nice 19)
offer: copy  --------> queue of BATCHES_MAX -- socket --> gate, score, decide --> shadow-decisions
  full: dropped        waits for each answer, <---------- done
  and goes on          BATCH_S at most

Nothing that the other process does reaches the champion: it may sleep, crash, or eat its memory. It is killed where an
answer does not come in time, and started again later, each time later than before; not where its model was refused.
"""

import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time

import msgspec

from engine.config import Config
from engine.observe.metrics import Challenger
from engine.shadow_wire import Channel, Loaded, Refused, Scored, Seen, Task

_log = logging.getLogger("tidegate.shadow")

BATCHES_MAX = 8
# The gate has its own limit of time, within this one.
LOAD_S = 180.0
BATCH_S = 5.0
# How long it may take to deliver what it has at the end.
CLOSE_S = 3.0
# Between a failure and the next start: the first time, and at most.
RESTART_S, RESTART_S_MAX = 10.0, 300.0
# Whoever went well for so long begins anew with the first.
STEADY_S = 60.0


class _RefusedError(Exception):
    """The model may not be loaded."""


class Shadow:
    """One version of a model as a challenger; `counts` says what becomes of what it is offered."""

    def __init__(self, config: Config, counts: Challenger) -> None:
        """Starts loading it."""
        self.counts = counts
        self._task = Task(config, counts.label)
        self._queue: queue.Queue[Seen | None] = queue.Queue(BATCHES_MAX)
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"shadow {counts.label}", daemon=True)
        self._thread.start()

    def offer(self, batch: Seen) -> None:
        """Has it scored if it can be; waits for nothing."""
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            self.counts.dropped += len(batch.event_ids)

    def begin_close(self) -> None:
        """Lets it deliver what it has taken, and end; the rest is dropped."""
        self._closing.set()
        self._clear()
        self._queue.put(None)

    def close(self) -> None:
        """The same, and waits for that; not for one that hangs."""
        self.begin_close()
        self._thread.join(CLOSE_S)
        self._kill()
        self._thread.join()

    def _clear(self) -> None:
        """Only whoever offers may call this: nobody adds to the queue meanwhile."""
        while True:
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                return
            self.counts.dropped += 0 if batch is None else len(batch.event_ids)

    def _run(self) -> None:
        wait_s = RESTART_S
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                self._serve()
            except _RefusedError as error:
                _log.error("a challenger is refused", extra={"model": self.counts.label, "why": str(error)})
                return
            except (OSError, EOFError, msgspec.DecodeError) as error:
                if self._closing.is_set():
                    return
                self.counts.failures += 1
                wait_s = RESTART_S if time.monotonic() - began > STEADY_S else wait_s
                _log.warning(
                    "a challenger failed",
                    extra={"model": self.counts.label, "why": _why(error), "again_after_s": wait_s},
                )
                self._closing.wait(wait_s)
                wait_s = min(2 * wait_s, RESTART_S_MAX)

    def _serve(self) -> None:
        """From the start of a process to its end; raises what that ended with, if not by `close`."""
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        try:
            with theirs:
                self._process = _start(theirs)
            if self._closing.is_set():
                return
            channel.send(self._task, BATCH_S)
            answer = channel.answer(LOAD_S)
            if isinstance(answer, Refused):
                raise _RefusedError(answer.why)
            if isinstance(answer, Loaded):
                _log.info("a challenger scores beside the champion", extra={"model": self.counts.label})
                self.counts.facts = answer.facts
            while (batch := self._queue.get()) is not None:
                self._score(channel, batch)
            channel.close()
            self._wait()
        finally:
            self.counts.facts = None
            channel.close()
            self._kill()

    def _score(self, channel: Channel, batch: Seen) -> None:
        channel.send(batch, BATCH_S)
        answer = channel.answer(BATCH_S)
        if isinstance(answer, Scored):
            self.counts.scored += len(batch.event_ids)
            self.counts.undelivered += answer.undelivered

    def _wait(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(CLOSE_S)
            except subprocess.TimeoutExpired:
                _log.warning("a challenger did not end, and is killed", extra={"model": self.counts.label})

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _start(connection: socket.socket) -> "subprocess.Popen[bytes]":
    descriptor = connection.fileno()
    return subprocess.Popen(
        # -P: nothing is imported from the folder that the worker runs in.
        [sys.executable, "-P", "-m", "engine.shadow_child", str(descriptor)],
        # Our settings reach it with its task; passwords may be among them, and an environment can be read by others.
        env={name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        process_group=0,  # Ctrl-C is for the worker
    )


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {BATCH_S:g} s"
    return "its process ended" if isinstance(error, EOFError | ConnectionError) else str(error)
