"""`schedules`: shows, makes, deletes, pauses and resumes schedules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Tenant, Url, of_tenant, one_line
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.cli.templates import template_variables
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.schedules.documents import Schedule

_PATH: Final = "/v1/schedules"
_COLUMNS: Final = ("id", "cron", "time zone", "next", "last", "last problem", "paused", "note")


def list_schedules(*, tenant: Tenant = None, url: Url = None, json: AsJson = False) -> None:
    """Show all schedules, the oldest first."""
    run_async(_list(api_url(url), of_tenant(tenant), as_json=json))


def create_schedules(
    *,
    cron: Annotated[
        str, Parameter(help="Minute, hour, day, month and day of week: '30 9 * * MON-FRI'.")
    ],
    time_zone: Annotated[str, Parameter(help="By whose clocks: Europe/Berlin.")],
    file: Annotated[
        Path | None,
        Parameter(help="The notification as JSON, as in POST /v1/notifications.", name="--file"),
    ] = None,
    channel: Annotated[
        str | None, Parameter(name=["--channel", "-c"], help="email, sms, push, ...")
    ] = None,
    recipient: Annotated[
        str | None,
        Parameter(name=["--recipient", "--to", "-t"], help="Address, phone number or token."),
    ] = None,
    priority: Literal["high", "medium", "low"] | None = None,
    subject: Annotated[
        str | None, Parameter(name=["--subject", "-s"], help="Subject or title.")
    ] = None,
    body: Annotated[str | None, Parameter(name=["--body", "-b"], help="Text.")] = None,
    template: Annotated[
        str | None, Parameter(help="In place of the texts: NAME, the newest at each run.")
    ] = None,
    var: Annotated[
        dict[str, str] | None, Parameter(help="A variable of the template: --var.KEY VALUE.")
    ] = None,
    variables: Annotated[Path | None, Parameter(help="A file with all variables as JSON.")] = None,
    ttl: Annotated[
        Span | None, Parameter(help="It expires this long after its instant.", show_default=False)
    ] = None,
    tag: Annotated[str | None, Parameter(help="Your label, to find them by.")] = None,
    note: Annotated[str, Parameter(help="What it is for, in one line.", show_default=False)] = "",
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Submit a notification at each instant of a cron expression."""
    content = _without_none({"subject": subject, "body": body})
    given = _without_none(
        {
            "channel": channel,
            "recipient": recipient,
            "priority": priority,
            "content": content or None,
            "template": template,
            "variables": template_variables(var, variables) if var or variables else None,
            "ttl_s": ttl,
            "tag": tag,
        }
    )
    if file is not None and given:
        raise ConfigError("expected either --file or the fields of the notification")
    request = {
        "cron": cron,
        "time_zone": time_zone,
        "notification": given if file is None else _read(file),
        "note": one_line(note),
    }
    run_async(_create(api_url(url), request, of_tenant(tenant), as_json=json))


def delete_schedules(schedule: UUID, *, tenant: Tenant = None, url: Url = None) -> None:
    """Delete a schedule by its id. What it has submitted stays."""
    run_async(_delete(api_url(url), schedule, of_tenant(tenant)))


def pause_schedules(
    schedule: UUID, *, tenant: Tenant = None, url: Url = None, json: AsJson = False
) -> None:
    """Pause a schedule by its id: its instants pass by until it is resumed."""
    run_async(_set_paused(api_url(url), schedule, of_tenant(tenant), paused=True, as_json=json))


def resume_schedules(
    schedule: UUID, *, tenant: Tenant = None, url: Url = None, json: AsJson = False
) -> None:
    """Resume a schedule by its id. What it missed is not submitted."""
    run_async(_set_paused(api_url(url), schedule, of_tenant(tenant), paused=False, as_json=json))


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _read(path: Path) -> object:
    """Return the JSON document in a file. Raises ConfigError if it has none."""
    import msgspec  # noqa: PLC0415 start-up time

    try:
        document: object = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        msg = f"--file: got {str(path)!r}, expected a file: {error.strerror}"
        raise ConfigError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file: got {str(path)!r}, expected JSON: {error}") from error
    return document


async def _list(url: str, of: Mapping[str, str], *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.schedules.documents import Schedule  # noqa: PLC0415
    from notifier.cli.paging import read_pages  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    rows, cursor = await read_pages(url, _PATH, of, None)
    if as_json:
        print_json({"items": rows, "next_cursor": cursor})
        return
    print_table(_COLUMNS, map(_cells, msgspec.convert(rows, list[Schedule])))


def _cells(row: Schedule) -> tuple[object, ...]:
    problem = row.last_problem
    return (
        row.id,
        row.cron,
        row.time_zone,
        row.next_at,
        row.last_at,
        None if problem is None else problem.problem.type.rpartition(":")[2],
        "yes" if row.paused else None,
        row.note,
    )


async def _create(
    url: str, request: Mapping[str, Any], of: Mapping[str, str], *, as_json: bool
) -> None:
    from notifier.api.schedules.documents import Schedule  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    async with open_client(url) as client:
        _show(await client.post(_PATH, request, Schedule, of), as_json=as_json)


async def _delete(url: str, schedule: UUID, of: Mapping[str, str]) -> None:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        await client.delete(f"{_PATH}/{schedule}", of)
    print(f"{schedule} deleted")


async def _set_paused(
    url: str, schedule: UUID, of: Mapping[str, str], *, paused: bool, as_json: bool
) -> None:
    from notifier.api.schedules.documents import Schedule  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    path = f"{_PATH}/{schedule}"
    async with open_client(url) as client:
        found = await client.get(path, Schedule, {**of, "include": "notification"})
        request = {
            "cron": found.cron,
            "time_zone": found.time_zone,
            "notification": found.notification,
            "note": found.note or "",
            "paused": paused,
        }
        _show(await client.put(path, request, Schedule, of), as_json=as_json)


def _show(schedule: Schedule, *, as_json: bool) -> None:
    from notifier.cli.show import print_json  # noqa: PLC0415 start-up time

    if as_json:
        print_json(schedule)
        return
    following = "paused" if schedule.paused else f"next at {schedule.next_at:%Y-%m-%dT%H:%M:%SZ}"
    print(f"{schedule.id} {schedule.cron} {schedule.time_zone}: {following}")
