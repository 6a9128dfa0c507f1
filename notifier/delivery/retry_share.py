"""How the rows that one pass publishes are divided between first attempts and retries. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.domain.due import RETRY_SHARE, DueClass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.delivery.class_cursor import ClassRead


class RetryShare:
    """The share of the retries of one turn of a queue: one row in four while both wait."""

    def __init__(self) -> None:
        self._credit = 0.0
        self._first_attempts_wait = False
        self._retries_wait = False

    def split(self, limit: int) -> tuple[int, int]:
        """Divide a pass of `limit` rows; returns the limits of first attempts and of retries."""
        if not self._first_attempts_wait:
            return limit, limit
        retries = min(limit, int(self._credit + limit / RETRY_SHARE))
        if not self._retries_wait:
            retries = min(retries, 1)  # enough to notice that some wait again
        return limit - retries, retries

    def record(self, classes: Mapping[DueClass, ClassRead]) -> bool:
        """Record a pass, with the classes that it asked for; returns whether more rows wait."""
        first, retry = classes.get(DueClass.FIRST), classes.get(DueClass.RETRY)
        if first:
            self._first_attempts_wait = first.has_more
            self._credit += first.got / (RETRY_SHARE - 1)
        if retry:
            self._retries_wait = retry.has_more
            self._credit = self._credit - retry.got if retry.has_more else 0.0
        self._credit = min(max(0.0, self._credit), 1.0)
        return (
            self._first_attempts_wait
            or self._retries_wait
            or any(of_class.has_more for of_class in classes.values())
        )
