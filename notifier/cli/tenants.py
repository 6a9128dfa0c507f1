"""`tenants`: makes, shows and deletes tenants."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from notifier.cli.access import OnDatabase, open_access
from notifier.cli.options import AsJson, Url, one_line, tenant_option
from notifier.cli.running import run_async
from notifier.domain.errors import ConfigError
from notifier.domain.tenants import DEFAULT_TENANT


def set_tenants(
    name: str,
    *,
    note: Annotated[str, Parameter(help="What it is, in one line.", show_default=False)] = "",
    database: OnDatabase = False,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Make a tenant, or change its note."""
    run_async(_set(_named(name), one_line(note), url, on_database=database, as_json=json))


def list_tenants(*, database: OnDatabase = False, url: Url = None, json: AsJson = False) -> None:
    """Show all tenants; the default one, which always exists, is not among them."""
    run_async(_list(url, on_database=database, as_json=json))


def delete_tenants(name: str, *, database: OnDatabase = False, url: Url = None) -> None:
    """Delete a tenant that has no keys and no notifications that wait or are being sent."""
    run_async(_delete(_named(name), url, on_database=database))


def _named(name: str) -> str:
    if tenant_option(name) == DEFAULT_TENANT:
        raise ConfigError(f"the tenant {name} always exists and cannot be changed")
    return name


async def _set(name: str, note: str, url: str | None, *, on_database: bool, as_json: bool) -> None:
    from notifier.cli.show import print_json  # noqa: PLC0415 start-up time

    async with open_access(url, on_database=on_database) as access:
        tenant = await access.put_tenant(name, note)
    print_json(tenant) if as_json else print(f"tenant {tenant.name}  {tenant.note or ''}".rstrip())


async def _list(url: str | None, *, on_database: bool, as_json: bool) -> None:
    from notifier.api.auth.documents import TenantPage  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_access(url, on_database=on_database) as access:
        tenants = await access.tenants()
    if as_json:
        print_json(TenantPage(tenants))
        return
    rows = [(tenant.name, tenant.created_at, tenant.note) for tenant in tenants]
    print_table(("name", "created", "note"), rows)


async def _delete(name: str, url: str | None, *, on_database: bool) -> None:
    async with open_access(url, on_database=on_database) as access:
        await access.delete_tenant(name)
    print(f"tenant {name} deleted")
