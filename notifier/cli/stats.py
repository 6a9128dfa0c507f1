"""`stats`: what was accepted, sent and ended in each minute, hour or day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsCsv, AsJson, Tenant, Url, of_tenant
from notifier.cli.running import run_async
from notifier.cli.spans import read_span

if TYPE_CHECKING:
    from notifier.api.stats.documents import Quantiles, StatsRow

_PATH: Final = "/v1/stats"
_COUNTS: Final = (
    "accepted",
    "sent",
    "delivered",
    "undelivered",
    "failed",
    "expired",
    "cancelled",
    "suppressed",
)
_TIMES: Final = ("wait p50", "p95", "p99", "call p50", "p95", "p99")


def stats(
    *,
    from_: Annotated[
        str | None,
        Parameter(
            name="--from",
            help="An instant, or a span such as 6h: so long ago.",
            show_default=lambda _: "the last 60 minutes, 24 hours or 30 days",
        ),
    ] = None,
    to: Annotated[
        str | None, Parameter(help="Before this instant.", show_default=lambda _: "now")
    ] = None,
    step: Annotated[
        Literal["minute", "hour", "day"], Parameter(help="What a row is of, in UTC.")
    ] = "hour",
    by: Annotated[
        str | None, Parameter(help="A row for each queue, tag or provider, such as queue,tag.")
    ] = None,
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
    csv: AsCsv = False,
) -> None:
    """Show what was accepted, sent and ended, and how long calls waited and took, in seconds."""
    given = {"from": _instant(from_), "to": _instant(to), "step": step, "by": by}
    parameters = {name: value for name, value in given.items() if value is not None}
    parameters |= of_tenant(tenant)
    run_async(_show(api_url(url), parameters, as_json=json, as_csv=csv))


async def _show(url: str, parameters: Mapping[str, str], *, as_json: bool, as_csv: bool) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.stats.documents import StatsRow  # noqa: PLC0415
    from notifier.cli.show import print_csv, print_json, print_table  # noqa: PLC0415

    rows = await _read(url, parameters)
    if as_json:
        print_json({"items": rows, "next_cursor": None})
        return
    if as_csv:
        print_csv(rows, StatsRow)
        return
    by = [name for name in ("queue", "tag", "provider") if name in parameters.get("by", "")]
    documents = msgspec.json.decode(msgspec.json.encode(rows), type=list[StatsRow])
    print_table(("at", *by, *_COUNTS, *_TIMES), [_cells(row, by) for row in documents])


async def _read(url: str, parameters: Mapping[str, str]) -> list[Any]:
    """Returns the rows of all pages, as the API sent them."""
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    rows: list[Any] = []
    params = dict(parameters)
    async with open_client(url) as client:
        while True:
            page = await client.get(_PATH, dict[str, Any], params)
            rows += page["items"]
            if page["next_cursor"] is None:
                return rows
            params["cursor"] = page["next_cursor"]


def _cells(row: StatsRow, by: Sequence[str]) -> Sequence[object]:
    return (
        row.at,
        *(getattr(row, name) for name in by),
        *(getattr(row, name) for name in _COUNTS),
        *_times(row.wait_s),
        *_times(row.call_s),
    )


def _times(times: Quantiles | None) -> Sequence[float | None]:
    return (None, None, None) if times is None else (times.p50, times.p95, times.p99)


def _instant(text: str | None) -> str | None:
    """Returns an instant for the API, which says what is wrong with one."""
    if text is None:
        return None
    try:
        ago_s = read_span(text)
    except ValueError:
        return text
    return (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()
