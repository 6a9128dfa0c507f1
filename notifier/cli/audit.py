"""`audit`: what people did, newest first."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Url
from notifier.cli.paging import read_pages
from notifier.cli.running import run_async


def audit(
    *,
    actor: Annotated[str | None, Parameter(help="Such as key:8Rk2vQ0ZpLx1.")] = None,
    action: Annotated[str | None, Parameter(help="Such as key.created.")] = None,
    target: Annotated[str | None, Parameter(help="Such as tenant:shop.")] = None,
    created_from: Annotated[str | None, Parameter(help="Not before this instant.")] = None,
    created_to: Annotated[str | None, Parameter(help="Before this instant.")] = None,
    limit: Annotated[
        int, Parameter(help="The most rows.", validator=validators.Number(gte=1, lte=200))
    ] = 50,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Show what people did to keys, tenants and pauses, newest first."""
    given = {
        "actor": actor,
        "action": action,
        "target": target,
        "created_from": created_from,
        "created_to": created_to,
    }
    filters = {name: value for name, value in given.items() if value is not None}
    run_async(_audit(api_url(url), filters, limit, as_json=json))


async def _audit(url: str, filters: dict[str, str], limit: int, *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.auth.documents import AuditEntry  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    rows, cursor = await read_pages(url, "/v1/audit", filters, limit)
    if as_json:
        print_json({"items": rows, "next_cursor": cursor})
        return
    entries = msgspec.convert(rows, list[AuditEntry])
    print_table(
        ("at", "actor", "action", "target", "note"),
        [(entry.at, entry.actor, entry.action, entry.target, entry.note) for entry in entries],
    )
