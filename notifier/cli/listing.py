"""`list`: notifications, newest first, by the filters of the API's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter, validators

from notifier.cli.environment import api_url
from notifier.cli.filters import NO_FILTERS, Filters
from notifier.cli.messages import print_message
from notifier.cli.options import AsCsv, AsJson, Url
from notifier.cli.paging import read_pages
from notifier.cli.running import run_async

if TYPE_CHECKING:
    from notifier.api.responses import Summary

_PATH: Final = "/v1/notifications"
_COLUMNS: Final = ("id", "status", "queue", "recipient", "reason", "code", "ended")


def list_(
    filters: Filters = NO_FILTERS,
    *,
    q: Annotated[str | None, Parameter(help="An id, a recipient or a reference.")] = None,
    limit: Annotated[
        int, Parameter(help="The most rows.", validator=validators.Number(gte=1))
    ] = 50,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every row.")] = False,
    url: Url = None,
    json: AsJson = False,
    csv: AsCsv = False,
) -> None:
    """List notifications, newest first. A filter takes several values with commas between them."""
    parameters = filters.parameters() | ({} if q is None else {"q": q})
    run_async(_list(api_url(url), parameters, None if all_ else limit, as_json=json, as_csv=csv))


async def _list(
    url: str, filters: Mapping[str, str], limit: int | None, *, as_json: bool, as_csv: bool
) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.responses import Summary  # noqa: PLC0415
    from notifier.cli.show import print_csv, print_json, print_table  # noqa: PLC0415

    rows, cursor = await read_pages(url, _PATH, filters, limit)
    if as_json:
        print_json({"items": rows, "next_cursor": cursor})
        return
    if as_csv:
        print_csv(rows, Summary)
        if cursor is not None:
            print_message("more: --all")
        return
    summaries = msgspec.json.decode(msgspec.json.encode(rows), type=list[Summary])
    print_table(_COLUMNS, [_cells(row) for row in summaries])
    if cursor is not None:
        print("more: --all")


def _cells(row: Summary) -> Sequence[object]:
    result = row.result
    return (
        row.id,
        row.status,
        row.queue,
        row.recipient,
        result.reason if result else None,
        result.code if result else None,
        result.at if result else None,
    )
