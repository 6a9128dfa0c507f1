"""Cursor paging, shared by the lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from notifier.api.http.query import cursor_after
from notifier.domain.notification import FailureView, NotificationView
from notifier.ports.queries import Filter

_View = TypeVar("_View", NotificationView, FailureView)


def with_one_more(selection: Filter) -> Filter:
    """Returns the filter with its limit raised by one: the extra row shows that a page follows."""
    return replace(selection, limit=selection.limit + 1)


def split_page(views: Sequence[_View], limit: int) -> tuple[Sequence[_View], str | None]:
    """Returns the first `limit` rows, and the cursor of the next page, if there is one."""
    if len(views) <= limit:
        return views, None
    return views[:limit], cursor_after(views[limit - 1].id)
