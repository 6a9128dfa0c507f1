"""`cancel`, `retry`, `erase` and `operations`: changes one notification, or many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

from cyclopts import Parameter, validators

from notifier.cli.asking import is_wanted
from notifier.cli.environment import api_url
from notifier.cli.filters import ALL_WAITING, NO_FILTERS, Filters, WaitingFilters
from notifier.cli.messages import print_message
from notifier.cli.options import AsJson, DryRun, Url, Yes, one_line
from notifier.cli.running import run_async
from notifier.domain.errors import ConfigError
from notifier.domain.operations import OperationKind, OperationStatus
from notifier.domain.value_lists import escaped

if TYPE_CHECKING:
    from notifier.api.responses import Operation
    from notifier.cli.client import Client

_PATH: Final = "/v1/operations"
_COLUMNS: Final = ("id", "kind", "status", "done", "matched", "by", "created", "note")
_POLL_S: Final = 0.5
_FAILED: Final = 1
_DONE: Final = {
    OperationKind.CANCEL: "cancelled",
    OperationKind.RETRY: "wait again",
    OperationKind.ERASE: "erased",
}
Ids = Annotated[UUID, Parameter(help="Their ids, in place of filters.")]
Note = Annotated[
    str, Parameter(help="Why; it is kept in the audit. Needed for many.", show_default=False)
]


def cancel(
    *ids: Ids,
    filters: WaitingFilters = ALL_WAITING,
    note: Note = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Cancel notifications that wait: one, several, or all that filters select."""
    body = _body(OperationKind.CANCEL, ids, filters, note, dry_run=dry_run)
    return run_async(_change(api_url(url), body, ids, dry_run=dry_run, yes=yes, as_json=json))


def retry(
    *ids: Ids,
    filters: Filters = NO_FILTERS,
    note: Note = "",
    rate: Annotated[
        float, Parameter(help="At most so many per second.", validator=validators.Number(gt=0))
    ] = 10.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Send notifications again that failed, expired, or were cancelled or suppressed."""
    body = _body(OperationKind.RETRY, ids, filters, note, dry_run=dry_run)
    body |= {"rate_per_s": rate}
    return run_async(_change(api_url(url), body, ids, dry_run=dry_run, yes=yes, as_json=json))


def erase(
    *,
    recipient: Annotated[
        str, Parameter(name=["--recipient", "--to"], help="Whose data is erased.")
    ],
    channel: Annotated[str | None, Parameter(help="Only on this channel.")] = None,
    tenant: Annotated[
        str | None, Parameter(help="With a deployment key: only of this one.")
    ] = None,
    note: Annotated[
        str, Parameter(help="Why, without the recipient; it is kept.", show_default=False)
    ] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Erase a recipient: addresses, contents and what providers answered. It cannot be undone."""
    filters = WaitingFilters(recipient=escaped(recipient), channel=channel, tenant=tenant)
    body = _body(OperationKind.ERASE, (), filters, note, dry_run=dry_run)
    return run_async(_change(api_url(url), body, (), dry_run=dry_run, yes=yes, as_json=json))


def operations(
    operation: Annotated[UUID | None, Parameter(help="Only this one.", show_default=False)] = None,
    *,
    watch: Annotated[bool, Parameter(negative="", help="Show its progress until it ends.")] = False,
    stop: Annotated[bool, Parameter(negative="", help="Stop it.")] = False,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Show what was asked of many notifications, and how far it is."""
    if operation is None:
        if watch or stop:
            raise ConfigError("--watch and --stop need the id of an operation")
        return run_async(_list(api_url(url), as_json=json))
    return run_async(_show(api_url(url), operation, watch=watch, stop=stop, as_json=json))


def _body(
    kind: OperationKind, ids: Sequence[UUID], filters: WaitingFilters, note: str, *, dry_run: bool
) -> dict[str, object]:
    """Return the request of an operation. Raises ConfigError."""
    selected = dict(filters.of_operation())
    if not ids and not selected:
        raise ConfigError(f"expected ids or filters, such as --tag summer-sale, to {kind}")
    if ids and not selected.keys() <= {"status"}:
        raise ConfigError("expected either ids or filters; only --status may stand beside ids")
    is_one = len(ids) == 1 and not selected
    if not (note.strip() or is_one or dry_run):
        raise ConfigError("--note: expected why, for more than one notification")
    if ids:
        selected["ids"] = [str(id_) for id_ in ids]
    return {"kind": kind, "filter": selected, "note": one_line(note).strip()}


async def _change(
    url: str,
    body: dict[str, object],
    ids: Sequence[UUID],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    from notifier.api.responses import Operation  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        if len(ids) == 1 and not dry_run and body["filter"] == {"ids": [str(ids[0])]}:
            return await _change_one(client, ids[0], body, as_json=as_json)
        count = {**body, "note": body["note"] or "dry run", "dry_run": True}
        found = await client.post(_PATH, count, Operation)
        if not as_json:
            print(_found_line(found))
        # A count that is no exact one ended at a limit: others may match, though none did so far.
        is_erasure = found.kind is OperationKind.ERASE  # of suppressions, too
        if dry_run or (found.matched_is_exact and not found.matched and not is_erasure):
            if as_json:
                print_json(found)
            return 0
        if not _is_wanted(found, yes=yes):
            return 0
        operation = await client.post(_PATH, body, Operation)
        try:
            return await _follow(client, operation, as_json=as_json)
        except asyncio.CancelledError:
            print_message(
                f"operation {operation.id} goes on; "
                f"`notifier operations {operation.id} --stop` stops it"
            )
            raise


def _is_wanted(found: Operation, *, yes: bool) -> bool:
    verb = found.kind.value.capitalize()
    if found.kind is OperationKind.ERASE:  # it cannot be undone, and concerns more than these
        return is_wanted(None, "all that is stored of the recipient", verb, yes=yes)
    if found.matched_is_exact:
        return is_wanted(found.matched, "notifications", verb, yes=yes)
    return is_wanted(
        None, f"all notifications that match, at least {found.matched:,}", verb, yes=yes
    )


async def _change_one(
    client: Client, id_: UUID, body: Mapping[str, object], *, as_json: bool
) -> int:
    from notifier.api.responses import Notification  # noqa: PLC0415 start-up time
    from notifier.cli.client import notification_path  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    path = f"{notification_path(str(id_))}/{body['kind']}"
    changed = await client.post(path, {"note": body["note"]}, Notification)
    print_json(changed) if as_json else print(f"{changed.id} {changed.status}")
    return 0


def _found_line(found: Operation) -> str:
    least = "" if found.matched_is_exact else "at least "
    example = f", for example {found.sample[0]}" if found.sample else ""
    return f"{least}{found.matched:,} notifications match{example}"


async def _follow(client: Client, operation: Operation, *, as_json: bool) -> int:
    """Show the progress of an operation until it ends; returns the exit code."""
    from notifier.api.responses import Operation  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    shown = ""
    while True:
        line = _progress_line(operation)
        if not as_json and line != shown:
            print(line, flush=True)
            shown = line
        if operation.status != OperationStatus.RUNNING:
            break
        await asyncio.sleep(_POLL_S)
        operation = await client.get(f"{_PATH}/{operation.id}", Operation)
    if as_json:
        print_json(operation)
    has_failed = operation.failed or operation.status == OperationStatus.FAILED
    return _FAILED if has_failed else 0


def _progress_line(operation: Operation) -> str:
    done = _DONE[operation.kind]
    matched = f"{operation.matched:,} matched" + ("" if operation.matched_is_exact else " so far")
    parts = [f"operation {operation.id} {operation.status}", matched]
    parts.append(f"{operation.done:,} {done}")
    if operation.skipped:
        parts.append(f"{operation.skipped:,} skipped")
    if operation.failed:
        parts.append(f"{operation.failed:,} failed")
    return "  ".join(parts)


async def _show(url: str, id_: UUID, *, watch: bool, stop: bool, as_json: bool) -> int:
    from notifier.api.responses import Operation  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        if stop:
            operation = await client.post(f"{_PATH}/{id_}/stop", {}, Operation)
        else:
            operation = await client.get(f"{_PATH}/{id_}", Operation)
        if watch:
            return await _follow(client, operation, as_json=as_json)
    print_json(operation) if as_json else print(_progress_line(operation))
    return 0


async def _list(url: str, *, as_json: bool) -> int:
    from notifier.api.responses import OperationPage  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_client(url) as client:
        if as_json:
            print_json(await client.get_raw(_PATH))
            return 0
        page = await client.get(_PATH, OperationPage)
    print_table(_COLUMNS, [_cells(each) for each in page.items])
    if page.next_cursor is not None:
        print("there are more: `--json` has the cursor")
    return 0


def _cells(operation: Operation) -> Sequence[object]:
    return (
        operation.id,
        operation.kind,
        operation.status,
        operation.done,
        operation.matched,
        operation.actor,
        operation.created_at,
        operation.note,
    )
