"""What the processes of one system did, one line each in a file that all of them append to.

The sandbox's log shows the calls that arrived; the trace also shows which messages, claims and
calls preceded them, and it outlives a kill.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

_encode = msgspec.json.Encoder().encode


class Kind(StrEnum):
    """What a process did."""

    PUBLISHED = "published"
    MESSAGE = "message"
    REQUESTED = "requested"
    CLAIMED = "claimed"
    CALLED = "called"
    ACCEPTED = "accepted"
    THROTTLED = "throttled"
    CONTROLS = "controls"


class Key(NamedTuple):
    """A notification at a claim; of a pointer the claim that it leads to."""

    id: str
    claim: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `where` is the queue, or the provider of a call, or what is stopped."""

    at: float
    pid: int
    kind: Kind
    where: str = ""
    keys: Sequence[Key] = ()


_Decoder: Final = msgspec.json.Decoder(Event)


class TraceWriter:
    """Appends events. A line is written at once and whole, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self._pid = os.getpid()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, kind: Kind, where: str = "", keys: Sequence[Key] = ()) -> None:
        """Append one event."""
        event = Event(at=time.time(), pid=self._pid, kind=kind, where=where, keys=keys)
        os.write(self._file, _encode(event) + b"\n")


class Trace:
    """Reads the events since the last `start`, and sets how the traced provider answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._read: list[Event] = []

    def start(self) -> None:
        """Leave out what is there already."""
        self._read = []
        self._offset = self.path.stat().st_size if self.path.exists() else 0

    def events(self) -> Sequence[Event]:
        """Return all events since `start`, in the order of their writing."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._read.append(_Decoder.decode(line))
        return self._read

    def set_answer(self, answer: str) -> None:
        """Set how the traced provider answers from now on; see traced.Answer."""
        file = answer_file(self.path)
        draft = file.with_suffix(".draft")
        draft.write_text(answer)
        draft.replace(file)


def answer_file(path: Path) -> Path:
    """Return the file that says how the traced provider answers."""
    return path.with_suffix(".answer")


def of_kind(events: Iterable[Event], kind: Kind) -> list[Event]:
    """Return the events of one kind."""
    return [event for event in events if event.kind is kind]


def keys_of(events: Iterable[Event], *kinds: Kind, pid: int | None = None) -> set[Key]:
    """Return the keys of the events of these kinds, of one process or of all."""
    return {
        key
        for event in events
        if event.kind in kinds and pid in (None, event.pid)
        for key in event.keys
    }
