"""`/v1/stats`: what happened in each minute, hour or day."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of, seen_by
from notifier.api.http.cursors import cursor_after_key, key_in
from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.http.query import StatsQuery, wrong_cursor
from notifier.api.rules import ApiRules
from notifier.api.stats.documents import StatsPage, StatsRow
from notifier.domain.stats import Dimension, Step
from notifier.ports.queries import Filter
from notifier.ports.stats import StatsReader, StatsSelection

STATS: Final = "/v1/stats"
STATS_PARAMETERS: Final = ("from", "to", "step", "by", "tenant", "cursor")
DEFAULT_STEP: Final = Step.HOUR
DEFAULT_STEPS: Final = {Step.MINUTE: 60, Step.HOUR: 24, Step.DAY: 30}
"""How many steps before `to` a request without `from` gets."""


class StatsRoutes:
    """Handlers of `/v1/stats`."""

    def __init__(self, *, store: StatsReader, rules: ApiRules) -> None:
        self._store = store
        self._deadline_s = rules.request_deadline_s
        self._query = StatsQuery()

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        values = self._query.parse(request)
        view = seen_by(principal_of(request.scope), Filter(tenant=values.get("tenant"))).view
        step: Step = values.get("step", DEFAULT_STEP)
        by = frozenset(map(Dimension, values.get("by", ())))
        listed = f"stats {step} {sorted(by)} {view.tenant!r} {view.mode}"
        begin, end = _span(values, step, listed)
        selection = StatsSelection(step=step, begin=begin, end=end, by=by, view=view)
        async with deadline(self._deadline_s):
            page = await self._store.stats(selection)
        cursor = None
        if page.next_begin is not None:
            # With the end: a request without `to` would get another one for each page.
            key = f"{page.next_begin.timestamp():.0f} {end.timestamp():.0f}"
            cursor = cursor_after_key(key, listed)
        return page_response(request, StatsPage(list(map(StatsRow.of, page.rows)), cursor))


def _span(values: Mapping[str, Any], step: Step, listed: str) -> tuple[datetime, datetime]:
    """Returns where a page begins and where the last one ends, in whole seconds.

    Raises InvalidNotification for a cursor that is not of this list.
    """
    if "cursor" in values:
        key = key_in(values["cursor"], listed)
        with suppress(ValueError, OverflowError, OSError):
            begin, end = map(int, (key or "").split(" "))
            return datetime.fromtimestamp(begin, UTC), datetime.fromtimestamp(end, UTC)
        raise wrong_cursor()
    now = datetime.now(UTC).timestamp()
    last = datetime.fromtimestamp(ceil(min(values.get("to", now), now)), UTC)
    if "from" not in values:
        return step.begin(last) - (DEFAULT_STEPS[step] - 1) * step.span, last
    if values["from"] >= now:
        return last, last
    return step.begin(datetime.fromtimestamp(values["from"], UTC)), last
