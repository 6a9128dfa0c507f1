"""Documents of statistics. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from notifier.api.requests import Instant
from notifier.domain.stats import quantile
from notifier.ports import stats


class Quantiles(msgspec.Struct):
    """How many seconds half, 95 and 99 of 100 values do not exceed.

    They are read from a histogram: each is at most 19 % off, and 1 ms.
    """

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, histogram: Sequence[int]) -> Quantiles | None:
        """Builds the document of a histogram; None if it is empty."""
        shares = (quantile(histogram, share) for share in (0.5, 0.95, 0.99))
        values = [round(value, 3) for value in shares if value is not None]
        return cls(*values) if values else None


class StatsRow(msgspec.Struct):
    """What happened in the minute, hour or day that begins `at`.

    `queue`, `tag` and `provider` are null unless `by` names them, and of what has none; the tag
    `other` counts for those beyond the first 200 of the tenant in the hour. `accepted` are those
    that the API stored, `sent` those that a provider took, whatever came of them later; each of the
    others is counted once, when it ended, and taken back if it is sent again. `wait_s` and `call_s`
    are how long calls of providers waited, and took; null without any.
    """

    at: Instant
    queue: str | None
    tag: str | None
    provider: str | None
    accepted: int
    sent: int
    delivered: int
    undelivered: int
    failed: int
    expired: int
    cancelled: int
    suppressed: int
    wait_s: Quantiles | None
    call_s: Quantiles | None

    @classmethod
    def of(cls, row: stats.StatsRow) -> StatsRow:
        """Builds the document of a row."""
        return cls(
            at=row.at,
            queue=row.queue,
            tag=row.tag,
            provider=row.provider,
            accepted=row.accepted,
            sent=row.sent,
            delivered=row.delivered,
            undelivered=row.undelivered,
            failed=row.failed,
            expired=row.expired,
            cancelled=row.cancelled,
            suppressed=row.suppressed,
            wait_s=Quantiles.of(row.waits),
            call_s=Quantiles.of(row.calls),
        )


class StatsPage(msgspec.Struct):
    """Rows, the oldest first, for steps in which anything happened.

    A page has whole steps. `next_cursor` is null on the last page.
    """

    items: Sequence[StatsRow]
    next_cursor: str | None
