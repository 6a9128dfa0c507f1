"""`webhooks`: shows, makes, changes, deletes and tests webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

from cyclopts import Parameter

from notifier.cli.environment import api_url
from notifier.cli.options import AsJson, Tenant, Url, of_tenant, one_line
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from notifier.api.webhooks.documents import Webhook, WebhookWithSecret

_PATH: Final = "/v1/webhooks"
_OPERATIONS: Final = "/v1/operations"
_COLUMNS: Final = ("id", "status", "reason", "url", "events", "last success", "last failure")
Events = Annotated[
    list[str] | None,
    Parameter(
        name="--event",
        help="A type of events, or notification.*; more than once for several.",
        negative="",
    ),
]


def list_webhooks(*, tenant: Tenant = None, url: Url = None, json: AsJson = False) -> None:
    """Show all webhooks, the oldest first."""
    run_async(_list(api_url(url), of_tenant(tenant), as_json=json))


def create_webhooks(
    target: Annotated[str, Parameter(help="The URL that is called.")],
    /,
    *,
    event: Events = None,
    note: Annotated[str, Parameter(help="What it is for, in one line.", show_default=False)] = "",
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Have a URL called with events, and print the secret that verifies the calls once."""
    request: dict[str, object] = {"url": target, "note": one_line(note)}
    if event:
        request["events"] = event
    run_async(_create(api_url(url), request, of_tenant(tenant), as_json=json))


def update_webhooks(
    webhook: UUID,
    /,
    *,
    target: Annotated[
        str | None, Parameter(name="--target", help="The URL that is called from now on.")
    ] = None,
    event: Events = None,
    status: Annotated[
        Literal["enabled", "disabled"] | None, Parameter(help="Whether it is called.")
    ] = None,
    note: Annotated[str | None, Parameter(help="What it is for, in one line.")] = None,
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Change a webhook, disable it, or enable it again."""
    given = {
        "url": target,
        "events": event or None,
        "status": status,
        "note": None if note is None else one_line(note),
    }
    change = {name: value for name, value in given.items() if value is not None}
    if not change:
        raise ConfigError("expected --target, --event, --status or --note")
    run_async(_update(api_url(url), webhook, change, of_tenant(tenant), as_json=json))


def delete_webhooks(webhook: UUID, /, *, tenant: Tenant = None, url: Url = None) -> None:
    """Delete a webhook by its id. Its calls that wait fail."""
    run_async(_delete(api_url(url), webhook, of_tenant(tenant)))


def rotate_webhooks(
    webhook: UUID,
    /,
    *,
    overlap: Annotated[
        Span | None,
        Parameter(help="For how long the secret of before signs, too: 1d.", show_default=False),
    ] = None,
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Replace the secret of a webhook, and print the new one once."""
    request = {} if overlap is None else {"overlap_s": overlap}
    run_async(_rotate(api_url(url), webhook, request, of_tenant(tenant), as_json=json))


def test_webhooks(
    webhook: UUID,
    /,
    *,
    retry_missed: Annotated[
        bool,
        Parameter(help="Repeat the calls that failed or expired instead.", negative=""),
    ] = False,
    note: Annotated[
        str, Parameter(help="Why calls are repeated, in one line.", show_default=False)
    ] = "",
    tenant: Tenant = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Call a webhook with an event of the type webhook.test, or repeat what it missed."""
    if retry_missed:
        why = one_line(note) or "calls that the webhook missed"
        run_async(_retry_missed(api_url(url), webhook, why, tenant, as_json=json))
    else:
        run_async(_test(api_url(url), webhook, of_tenant(tenant), as_json=json))


async def _list(url: str, of: Mapping[str, str], *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415 start-up time

    from notifier.api.webhooks.documents import Webhook  # noqa: PLC0415
    from notifier.cli.paging import read_pages  # noqa: PLC0415
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    rows, cursor = await read_pages(url, _PATH, of, None)
    if as_json:
        print_json({"items": rows, "next_cursor": cursor})
        return
    print_table(_COLUMNS, map(_cells, msgspec.convert(rows, list[Webhook])))


def _cells(row: Webhook) -> tuple[object, ...]:
    return (
        row.id,
        row.status,
        row.reason,
        row.url,
        " ".join(row.events),
        row.last_success_at,
        row.last_failure_at,
    )


async def _create(
    url: str, request: Mapping[str, Any], of: Mapping[str, str], *, as_json: bool
) -> None:
    from notifier.api.webhooks.documents import WebhookWithSecret  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    async with open_client(url) as client:
        _show_secret(await client.post(_PATH, request, WebhookWithSecret, of), as_json=as_json)


async def _update(
    url: str, webhook: UUID, change: Mapping[str, Any], of: Mapping[str, str], *, as_json: bool
) -> None:
    from notifier.api.webhooks.documents import Webhook  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    async with open_client(url) as client:
        _show(await client.patch(f"{_PATH}/{webhook}", change, Webhook, of), as_json=as_json)


async def _delete(url: str, webhook: UUID, of: Mapping[str, str]) -> None:
    from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

    async with open_client(url) as client:
        await client.delete(f"{_PATH}/{webhook}", of)
    print(f"{webhook} deleted")


async def _rotate(
    url: str, webhook: UUID, request: Mapping[str, Any], of: Mapping[str, str], *, as_json: bool
) -> None:
    from notifier.api.webhooks.documents import WebhookWithSecret  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415

    path = f"{_PATH}/{webhook}/rotate"
    async with open_client(url) as client:
        _show_secret(await client.post(path, request, WebhookWithSecret, of), as_json=as_json)


async def _test(url: str, webhook: UUID, of: Mapping[str, str], *, as_json: bool) -> None:
    from notifier.api.responses import Accepted  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    async with open_client(url) as client:
        accepted = await client.post(f"{_PATH}/{webhook}/test", {}, Accepted, of)
    if as_json:
        print_json(accepted)
    else:
        print(f"{accepted.id} {accepted.status}: `notifier status {accepted.id}` shows the call")


async def _retry_missed(
    url: str, webhook: UUID, note: str, tenant: str | None, *, as_json: bool
) -> None:
    from notifier.api.responses import Operation  # noqa: PLC0415 start-up time
    from notifier.cli.client import open_client  # noqa: PLC0415
    from notifier.cli.show import print_json  # noqa: PLC0415

    selection: dict[str, object] = {"webhook": str(webhook), "status": ["failed", "expired"]}
    if tenant is not None:
        selection["tenant"] = tenant
    request = {"kind": "retry", "filter": selection, "note": note}
    async with open_client(url) as client:
        operation = await client.post(_OPERATIONS, request, Operation)
    if as_json:
        print_json(operation)
    else:
        print(f"operation {operation.id}: `notifier operations {operation.id}` shows what is done")


def _show(webhook: Webhook, *, as_json: bool) -> None:
    from notifier.cli.show import print_json  # noqa: PLC0415 start-up time

    if as_json:
        print_json(webhook)
        return
    reason = f" ({webhook.reason})" if webhook.reason else ""
    print(f"{webhook.id} {webhook.status}{reason} {' '.join(webhook.events)}")


def _show_secret(webhook: WebhookWithSecret, *, as_json: bool) -> None:
    _show(webhook, as_json=as_json)
    if not as_json:
        print(f"secret {webhook.secret}   shown once")
