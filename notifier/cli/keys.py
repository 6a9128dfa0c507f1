"""`keys`: makes, shows and revokes API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from notifier.cli.access import OnDatabase, open_access
from notifier.cli.messages import print_message
from notifier.cli.options import (
    AsJson,
    Url,
    checked_rate,
    one_line,
    shown_rate,
    tenant_option,
)
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.domain.credentials import KEY_ID, KeyId, Mode
from notifier.domain.errors import ConfigError
from notifier.domain.keys import KeyScope, NewKey

if TYPE_CHECKING:
    from notifier.api.auth.documents import CreatedKey, Key


def create_keys(
    *,
    tenant: Annotated[
        str | None,
        Parameter(help="Its tenant.", show_default=lambda _: "none: a deployment key"),
    ] = None,
    scope: Annotated[
        tuple[KeyScope, ...], Parameter(help="What it may do; repeat it for several.", negative="")
    ] = (KeyScope.SUBMIT, KeyScope.ADMIN),
    test: Annotated[
        bool, Parameter(negative="", help="A test key: what it submits is not delivered.")
    ] = False,
    rate: Annotated[
        float | None,
        Parameter(help="Notifications and other calls a second.", show_default=False),
    ] = None,
    expires: Annotated[
        Span | None, Parameter(help="Such as 90d.", show_default=lambda _: "never")
    ] = None,
    note: Annotated[str, Parameter(help="What it is for.", show_default=False)] = "",
    if_none: Annotated[
        bool, Parameter(negative="", help="Make none if there is a key already, and succeed.")
    ] = False,
    database: OnDatabase = False,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Make a key. Only the key itself goes to stdout, once: its hash is what is stored."""
    new = NewKey(
        tenant=None if tenant is None else tenant_option(tenant),
        mode=Mode.TEST if test else Mode.LIVE,
        scopes=tuple(dict.fromkeys(scope)),
        rate_per_s=checked_rate(rate),
        note=one_line(note),
        expires_at=None if expires is None else datetime.now(UTC) + timedelta(seconds=expires),
    )
    run_async(_create(new, url, if_none=if_none, on_database=database, as_json=json))


def list_keys(*, database: OnDatabase = False, url: Url = None, json: AsJson = False) -> None:
    """Show all keys, without their secrets."""
    run_async(_list(url, on_database=database, as_json=json))


def revoke_keys(key: str, *, database: OnDatabase = False, url: Url = None) -> None:
    """Revoke a key by its id. It cannot be undone."""
    if not KEY_ID.fullmatch(key):
        raise ConfigError("expected the id of a key, 12 characters: `notifier keys list`")
    run_async(_revoke(KeyId(key), url, on_database=database))


async def _create(
    new: NewKey, url: str | None, *, if_none: bool, on_database: bool, as_json: bool
) -> None:
    from notifier.cli.show import print_json  # noqa: PLC0415 start-up time

    async with open_access(url, on_database=on_database) as access:
        if if_none and (known := await access.keys()):
            print_message(f"there is a key already: {known[0].id}; no other was made")
            return
        made = await access.create_key(new)
    print_json(made) if as_json else _print_made(made)


def _print_made(key: CreatedKey) -> None:
    print(key.secret)
    expiry = f"expires {key.expires_at:%Y-%m-%d}" if key.expires_at else "never expires"
    print_message("shown once: keep it now")
    print_message(
        f"id {key.id}  {_owner(key)}  scopes {' '.join(key.scopes)}  "
        f"{shown_rate(key.rate_per_s)}  {expiry}"
    )


async def _list(url: str | None, *, on_database: bool, as_json: bool) -> None:
    from notifier.api.auth.documents import KeyPage  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json, print_table  # noqa: PLC0415

    async with open_access(url, on_database=on_database) as access:
        keys = await access.keys()
    if as_json:
        print_json(KeyPage(keys))
        return
    columns = ("id", "of", "mode", "scopes", "rate", "expires", "last used", "note")
    rows = [
        (
            key.id,
            _owner(key),
            key.mode.value,
            " ".join(key.scopes),
            shown_rate(key.rate_per_s),
            key.expires_at,
            key.last_used_at,
            key.note,
        )
        for key in keys
    ]
    print_table(columns, rows)


async def _revoke(id_: KeyId, url: str | None, *, on_database: bool) -> None:
    async with open_access(url, on_database=on_database) as access:
        await access.revoke_key(id_)
    print(f"{id_} revoked")


def _owner(key: Key) -> str:
    return "deployment" if key.tenant is None else f"tenant {key.tenant}"
