"""Which parts a statement that ends or changes notifications needs to write their events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from notifier.adapters.postgres.statements import Part, statement_with

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH: Final = Part("event_batch", ())


class EventWriting:
    """Adds the writing of events to statements; nothing where events are switched off."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on

    def parts(self, name: str, values: Sequence[object] = ()) -> Sequence[Part]:
        """Return the parts for sql/<name>.sql: <name>_events.sql, which has these parameters."""
        return (Part(f"{name}_events", values), _BATCH) if self._is_on else ()

    def statement(self, name: str, taken: int) -> str:
        """Return sql/<name>.sql, which has `taken` parameters, with its events."""
        return statement_with(name, taken, self.parts(name))


WRITE_EVENTS: Final = EventWriting(is_on=True)
