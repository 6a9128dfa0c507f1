"""`suppressions`: shows, adds, removes and imports recipients to whom nothing may be sent."""

from __future__ import annotations

import csv
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple
from uuid import UUID

from cyclopts import Parameter, validators

from notifier.cli.asking import is_wanted
from notifier.cli.environment import api_url
from notifier.cli.messages import print_message
from notifier.cli.options import AsCsv, AsJson, DryRun, Tenant, Url, Yes, of_tenant, one_line
from notifier.cli.paging import read_pages
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.responses import Problem
    from notifier.api.suppressions.documents import ImportedSuppressions, Suppression
    from notifier.cli.client import Client

_PATH: Final = "/v1/suppressions"
_MAX_ROWS: Final = 10_000
"""The most rows that the API takes in one call."""
_SHOWN_PROBLEMS: Final = 20
_SHOWN_CHANNELS: Final = 5
_COLUMNS: Final = ("id", "channel", "recipient", "topic", "reason", "created", "expires", "note")
Channel = Annotated[str, Parameter(name=["--channel", "-c"], help="email, sms, push, ...")]
Recipient = Annotated[
    str, Parameter(name=["--recipient", "--to", "-t"], help="Address, phone number or token.")
]
Topic = Annotated[
    str | None, Parameter(help="Only of this topic.", show_default=lambda _: "all notifications")
]


def list_suppressions(
    *,
    channel: Annotated[
        str | None, Parameter(name=["--channel", "-c"], help="Such as email.")
    ] = None,
    recipient: Annotated[
        str | None, Parameter(name=["--recipient", "--to", "-t"], help="Of whom.")
    ] = None,
    topic: Annotated[str | None, Parameter(help="Of which topic.")] = None,
    reason: Annotated[str | None, Parameter(help="Such as bounce,complaint.")] = None,
    limit: Annotated[
        int, Parameter(help="The most rows.", validator=validators.Number(gte=1))
    ] = 50,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every row.")] = False,
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
    csv_: AsCsv = False,
) -> None:
    """Show suppressions, newest first. A filter takes several values with commas between them."""
    given = {"channel": channel, "recipient": recipient, "topic": topic, "reason": reason}
    filters = {name: value for name, value in given.items() if value is not None}
    filters |= of_tenant(tenant)
    run_async(_list(api_url(url), filters, None if all_ else limit, as_json=json, as_csv=csv_))


def add_suppressions(
    *,
    channel: Channel,
    recipient: Recipient,
    topic: Topic = None,
    reason: Literal["manual", "bounce", "complaint", "unsubscribe", "gone"] = "manual",
    for_: Annotated[
        Span | None, Parameter(name="--for", help="Such as 90d.", show_default=lambda _: "for good")
    ] = None,
    note: Annotated[str, Parameter(help="Why, in one line.", show_default=False)] = "",
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Suppress a recipient. What waits for it ends as suppressed."""
    request: dict[str, object] = {
        "channel": channel,
        "recipient": recipient,
        "topic": topic,
        "reason": reason,
        "note": one_line(note),
        **of_tenant(tenant),
    }
    if for_ is not None:
        request["expires_at"] = datetime.now(UTC) + timedelta(seconds=for_)
    run_async(_add(api_url(url), request, as_json=json))


def remove_suppressions(suppression: UUID, *, tenant: Tenant = None, url: Url = None) -> None:
    """End a suppression by its id. What it has ended stays ended."""
    run_async(_remove(api_url(url), suppression, of_tenant(tenant)))


def import_suppressions(
    file: Path,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    tenant: Tenant = None,
    url: Url = None,
) -> int:
    """Add suppressions from a CSV file with the columns channel, recipient, topic, reason, note."""
    records, of = _records_of(file), of_tenant(tenant)
    print(_summary(records))
    count = len(records) - 1
    if dry_run or count == 0 or not is_wanted(count, "suppressions", "Add", yes=yes):
        return 0
    return run_async(_import(api_url(url), records, of))


async def _list(
    url: str, filters: Mapping[str, str], limit: int | None, *, as_json: bool, as_csv: bool
) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.suppressions.documents import Suppression  # noqa: PLC0415
    from notifier.cli.show import print_csv, print_json, print_table  # noqa: PLC0415

    rows, cursor = await read_pages(url, _PATH, filters, limit)
    if as_json:
        print_json({"items": rows, "next_cursor": cursor})
        return
    if as_csv:
        print_csv(rows, Suppression)
        if cursor is not None:
            print_message("more: --all")
        return
    print_table(_COLUMNS, map(_cells, msgspec.convert(rows, list[Suppression])))
    if cursor is not None:
        print("more: --all")


def _cells(row: Suppression) -> Sequence[object]:
    return (
        row.id,
        row.channel,
        row.recipient,
        row.topic,
        row.reason,
        row.created_at,
        row.expires_at,
        row.note,
    )


async def _add(url: str, request: dict[str, object], *, as_json: bool) -> None:
    from notifier.api.suppressions.documents import Suppression  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        stored = await client.post(_PATH, request, Suppression)
    if as_json:
        print_json(stored)
        return
    of = "all notifications" if stored.topic is None else f"the topic {stored.topic}"
    print(f"{stored.id} {stored.recipient} gets no {stored.channel}: {of}, {stored.reason}")


async def _remove(url: str, suppression: UUID, of: Mapping[str, str]) -> None:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        await client.delete(f"{_PATH}/{suppression}", of)
    print(f"{suppression} removed")


class _Record(NamedTuple):
    """A row of a file, and the number of the line on which it ends."""

    line: int
    values: list[str]


def _records_of(file: Path) -> Sequence[_Record]:
    """Return the rows, the names of the columns first. Raises ConfigError if it is no CSV."""
    try:
        text = file.read_bytes().removeprefix(BOM_UTF8).decode()
        reader = csv.reader(StringIO(text, newline=""), strict=True)
        records = [_Record(reader.line_num, values) for values in reader if any(values)]
    except OSError as error:
        msg = f"got {str(file)!r}, expected a file: {error.strerror}"
        raise ConfigError(msg) from error
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"got {str(file)!r}, expected CSV in UTF-8 with commas: {error}"
        raise ConfigError(msg) from error
    if not records:
        msg = f"{file} is empty; expected a first line such as channel,recipient"
        raise ConfigError(msg)
    return records


def _summary(records: Sequence[_Record]) -> str:
    """Return how many rows there are, and on which channels."""
    head, *rows = records
    names = [name.strip().lower() for name in head.values]
    if "channel" not in names:
        return f"{len(rows):,} rows"
    column = names.index("channel")
    counts = Counter(row.values[column].strip() for row in rows if len(row.values) > column)
    of = ", ".join(f"{channel} {count:,}" for channel, count in counts.most_common(_SHOWN_CHANNELS))
    return f"{len(rows):,} rows" + (f" ({of})" if of else "")


async def _import(url: str, records: Sequence[_Record], of: Mapping[str, str]) -> int:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    added = existing = 0
    problems: list[str] = []
    async with open_client(url) as client:
        for part in _parts(records):
            result = await _send(client, part, of)
            added, existing = added + result.added, existing + result.existing
            problems += _described(result, part)
    print(f"{added:,} added, {existing:,} there already, {len(problems):,} wrong", end="")
    print(":" if problems else "")
    for text in problems[:_SHOWN_PROBLEMS]:
        print(f"  {text}")
    if len(problems) > _SHOWN_PROBLEMS:
        print(f"  and {len(problems) - _SHOWN_PROBLEMS:,} more")
    return 1 if problems else 0


def _parts(records: Sequence[_Record]) -> Iterator[Sequence[_Record]]:
    """Yield the names of the columns and at most _MAX_ROWS rows, each time."""
    head, *rows = records
    for start in range(0, max(1, len(rows)), _MAX_ROWS):
        yield [head, *rows[start : start + _MAX_ROWS]]


async def _send(
    client: Client, part: Sequence[_Record], of: Mapping[str, str]
) -> ImportedSuppressions:
    from notifier.api.suppressions.documents import (  # noqa: PLC0415 start-up time
        ImportedSuppressions,
    )

    written = StringIO(newline="")
    csv.writer(written).writerows(record.values for record in part)
    return await client.upload(
        _PATH, written.getvalue().encode(), "text/csv", ImportedSuppressions, of
    )


def _described(result: ImportedSuppressions, part: Sequence[_Record]) -> list[str]:
    """Return a line for each wrong row, with the number of its line in the file."""
    lines: dict[int, int] = {}
    sent = 0
    for record in part:
        sent += 1 + sum(value.count("\n") for value in record.values)
        lines[sent] = record.line
    return [
        f"line {lines.get(row.line, row.line)}: {_reason(row.problem)}" for row in result.problems
    ]


def _reason(problem: Problem) -> str:
    errors = problem.errors or ()
    return "; ".join(f"{error.field}: {error.detail}" for error in errors) or problem.detail
