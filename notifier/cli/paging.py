"""Reads the pages of a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from notifier.cli.client import Client

T = TypeVar("T")

_PAGE: Final = 200
"""The most rows of one page."""


async def read_pages(
    url: str, path: str, filters: Mapping[str, str], limit: int | None
) -> tuple[list[Any], str | None]:
    """Read the rows of as many pages as needed, as the API sent them, and the next cursor.

    `limit` is the most rows, None for all.
    """
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        return await _read(client, path, filters, limit)


async def read_all(
    client: Client, path: str, into: type[T], filters: Mapping[str, str] | None = None
) -> list[T]:
    """Read all rows of a list, decoded into a document of this type."""
    import msgspec  # noqa: PLC0415 start-up time

    rows, _ = await _read(client, path, filters or {}, None)
    return msgspec.convert(rows, list[into])  # type: ignore[valid-type]


async def _read(
    client: Client, path: str, filters: Mapping[str, str], limit: int | None
) -> tuple[list[Any], str | None]:
    rows: list[Any] = []
    params = dict(filters)
    while True:
        missing = _PAGE if limit is None else limit - len(rows)
        params["limit"] = str(min(_PAGE, missing))
        page = await client.get(path, dict[str, Any], params)
        rows += page["items"]
        cursor: str | None = page["next_cursor"]
        if cursor is None or len(rows) == limit:
            return rows, cursor
        params["cursor"] = cursor
