"""The filters of `find`, as query parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypedDict
from urllib.parse import urlencode

from notifier_client.instants import instant_text
from notifier_client.submits import require_known

PAGE_SIZE: Final = 200
Values = str | Iterable[str] | None


class Filters(TypedDict, total=False):
    """Which notifications are found: one value, or several of which any fits.

    `reason`, `provider` and `code` need final values of `status`. `metadata`, `recipient` and
    `reference` find what the settings make searchable. `q` is an id, a recipient or a reference.
    """

    status: Values
    channel: Values
    priority: Values
    reason: Values
    provider: Values
    code: Values
    created_from: datetime | str | None
    created_to: datetime | str | None
    tag: Values
    recipient: Values
    reference: Values
    metadata: Mapping[str, str | Iterable[str]] | None
    webhook: Values
    tenant: Values
    mode: Values
    q: str | None


_ESCAPED: Final = frozenset({"tag", "recipient", "reference", "metadata"})
"""In these a comma of a value is written with a backslash."""


def query_of(filters: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of the first page. Raises TypeError for an unknown filter."""
    query: dict[str, str] = {}
    for name, value in filters.items():
        require_known(name, Filters.__annotations__)
        if name == "metadata":
            pairs = (value or {}).items()
            query.update((f"metadata.{key}", _joined(name, each)) for key, each in pairs)
        elif value is not None:
            query[name] = _joined(name, value)
    return query


def with_query(path: str, query: Mapping[str, str]) -> str:
    """Return a path with its parameters."""
    return f"{path}?{urlencode(query)}" if query else path


def _joined(name: str, value: str | datetime | Iterable[str]) -> str:
    if isinstance(value, datetime):
        return instant_text(name, value)
    values = [value] if isinstance(value, str) else value
    return ",".join(_escaped(name, each) for each in values)


def _escaped(name: str, value: str) -> str:
    return value.replace("\\", r"\\").replace(",", r"\,") if name in _ESCAPED else value
