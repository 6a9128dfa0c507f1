"""`tenants`: makes, shows and deletes tenants, and sets their quiet hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from notifier.cli.access import OnDatabase, open_access
from notifier.cli.environment import api_url
from notifier.cli.options import (
    AsJson,
    Url,
    checked_rate,
    one_line,
    shown_rate,
    tenant_option,
)
from notifier.cli.running import run_async
from notifier.domain.errors import ConfigError
from notifier.domain.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Mapping


def set_tenants(
    name: str,
    *,
    note: Annotated[str, Parameter(help="What it is, in one line.", show_default=False)] = "",
    sender: Annotated[
        list[str] | None,
        Parameter(
            help="What `from` may be: an address, a domain, a sender of text messages. Repeatable.",
            show_default=False,
        ),
    ] = None,
    locale: Annotated[
        str | None,
        Parameter(help="Of submits with a template that name none.", show_default=False),
    ] = None,
    topic: Annotated[
        dict[str, str] | None,
        Parameter(
            help="The title of a topic, for the page to unsubscribe: --topic.news 'Our news'.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        Parameter(
            help="Notifications a second that its keys may submit together. No limit by default.",
            show_default=False,
        ),
    ] = None,
    database: OnDatabase = False,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Make a tenant, or set all of its settings: what is not given is reset."""
    tenant_option(name)
    settings = {
        "note": one_line(note),
        "senders": tuple(sender or ()),
        "locale": locale,
        "topics": topic or {},
        "rate_per_s": checked_rate(rate),
    }
    run_async(_set(name, settings, url, on_database=database, as_json=json))


def list_tenants(*, database: OnDatabase = False, url: Url = None, json: AsJson = False) -> None:
    """Show all tenants, with the default one, which always exists."""
    run_async(_list(url, on_database=database, as_json=json))


def delete_tenants(name: str, *, database: OnDatabase = False, url: Url = None) -> None:
    """Delete a tenant without keys, schedules and notifications that wait or are being sent."""
    run_async(_delete(_named(name), url, on_database=database))


def quiet_tenants(
    name: str,
    *,
    start: Annotated[
        str | None, Parameter(help="When they begin: 21:00.", show_default=False)
    ] = None,
    end: Annotated[
        str | None, Parameter(help="When they end: 08:00, the next day.", show_default=False)
    ] = None,
    time_zone: Annotated[
        str | None, Parameter(help="Of the two: Europe/Berlin.", show_default=False)
    ] = None,
    off: Annotated[bool, Parameter(negative="", help="Remove them.")] = False,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Set the quiet hours of a tenant, or show them. `default` is a tenant, too."""
    tenant_option(name)
    path = f"/v1/tenants/{quote(name, safe='')}/quiet-hours"
    wanted = {"start": start, "end": end, "time_zone": time_zone}
    given = {field: value for field, value in wanted.items() if value is not None}
    if given and (off or len(given) < len(wanted)):
        raise ConfigError("expected --start, --end and --time-zone together, or --off alone")
    run_async(_quiet(api_url(url), path, given, off=off, as_json=json))


def _named(name: str) -> str:
    if tenant_option(name) == DEFAULT_TENANT:
        raise ConfigError(f"the tenant {name} always exists and cannot be deleted")
    return name


async def _set(
    name: str, settings: Mapping[str, Any], url: str | None, *, on_database: bool, as_json: bool
) -> None:
    from notifier.api.auth.documents import TenantRequest  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_access(url, on_database=on_database) as access:
        tenant = await access.put_tenant(name, TenantRequest(**settings))
    print_json(tenant) if as_json else print(f"tenant {tenant.name}  {tenant.note or ''}".rstrip())


async def _list(url: str | None, *, on_database: bool, as_json: bool) -> None:
    from notifier.api.auth.documents import TenantPage  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_access(url, on_database=on_database) as access:
        tenants = await access.tenants()
    if as_json:
        print_json(TenantPage(tenants))
        return
    rows = [
        (
            tenant.name,
            tenant.created_at,
            ", ".join(tenant.senders),
            shown_rate(tenant.rate_per_s),
            tenant.note,
        )
        for tenant in tenants
    ]
    print_table(("name", "created", "senders", "rate", "note"), rows)


async def _delete(name: str, url: str | None, *, on_database: bool) -> None:
    async with open_access(url, on_database=on_database) as access:
        await access.delete_tenant(name)
    print(f"tenant {name} deleted")


async def _quiet(
    url: str, path: str, hours: Mapping[str, str], *, off: bool, as_json: bool
) -> None:
    from notifier.api.responses import DeletedQuietHours, QuietHours  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        if off:
            deleted = await client.delete_into(path, DeletedQuietHours)
            print_json(deleted) if as_json else print(
                "removed" if deleted.was_set else "there were none"
            )
            return
        shown = await (
            client.put(path, hours, QuietHours) if hours else client.get(path, QuietHours)
        )
    line = f"tenant {shown.tenant} is quiet from {shown.start} to {shown.end}, {shown.time_zone}"
    print_json(shown) if as_json else print(line)
