"""Keys, tenants and the audit for the commands: over the API, or in the database itself."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Protocol, assert_never

from cyclopts import Parameter

from notifier.cli.environment import api_url, person, read_settings, require_urls
from notifier.cli.failures import CommandFailed
from notifier.cli.paging import read_all
from notifier.domain.credentials import ENTROPY_BYTES, KeyId, new_credential
from notifier.domain.errors import InvalidNotification
from notifier.domain.keys import MAX_KEYS, NewKey
from notifier.domain.tenants import DEFAULT_TENANT, tenant_id, tenant_name

if TYPE_CHECKING:
    from notifier.adapters.postgres.keys import PostgresKeys
    from notifier.api.auth.documents import CreatedKey, Key, Tenant, TenantRequest
    from notifier.cli.client import Client

OnDatabase = Annotated[
    bool,
    Parameter(
        name="--database",
        negative="",
        help="Work on the database of the settings itself: for the first key.",
    ),
]


class Access(Protocol):
    """What the commands `keys` and `tenants` do. Raises CommandFailed if it is refused."""

    async def create_key(self, new: NewKey) -> CreatedKey:
        """Make a key."""
        ...

    async def keys(self) -> Sequence[Key]:
        """Return all keys."""
        ...

    async def revoke_key(self, id_: KeyId) -> None:
        """Revoke a key."""
        ...

    async def put_tenant(self, name: str, settings: TenantRequest) -> Tenant:
        """Make or change a tenant."""
        ...

    async def tenants(self) -> Sequence[Tenant]:
        """Return all tenants."""
        ...

    async def delete_tenant(self, name: str) -> None:
        """Delete a tenant."""
        ...


@asynccontextmanager
async def open_access(url: str | None, *, on_database: bool) -> AsyncIterator[Access]:
    """Yield the access over the API at `url`, or in the database of the settings.

    Raises ConfigError without a database.
    """
    if not on_database:
        from notifier.cli.client import open_client  # noqa: PLC0415 start-up time

        async with open_client(api_url(url)) as client:
            yield ApiAccess(client)
        return
    settings = read_settings()
    require_urls(settings, "database")
    from notifier.adapters.postgres.connection import (  # noqa: PLC0415 start-up time
        ConnectionSettings,
        open_connection,
    )
    from notifier.adapters.postgres.keys import PostgresKeys  # noqa: PLC0415

    async with open_connection(ConnectionSettings(url=settings.database.url)) as connection:
        yield DatabaseAccess(PostgresKeys(connection))


class DatabaseAccess:
    """Implements Access in the database, in the name of the user of this machine."""

    def __init__(self, store: PostgresKeys) -> None:
        from notifier.ports.keys import Author  # noqa: PLC0415 start-up time

        self._store = store
        self._author = Author(actor=person())

    async def create_key(self, new: NewKey) -> CreatedKey:
        from notifier.api.auth.documents import CreatedKey  # noqa: PLC0415 start-up time
        from notifier.ports.keys import KeyRefusal  # noqa: PLC0415

        credential = new_credential(new.mode, secrets.token_bytes(ENTROPY_BYTES))
        made = await self._store.create(new, credential, self._author)
        if not isinstance(made, KeyRefusal):
            return CreatedKey.of_new(made, credential)
        match made:
            case KeyRefusal.UNKNOWN_TENANT:
                name = tenant_name(new.tenant or DEFAULT_TENANT)
                raise CommandFailed(
                    f"there is no tenant {name}; `notifier tenants set {name}` makes it"
                )
            case KeyRefusal.TOO_MANY:
                raise CommandFailed(
                    f"there are {MAX_KEYS} {new.mode} keys already; revoke one first"
                )
            case _:
                assert_never(made)

    async def keys(self) -> Sequence[Key]:
        from notifier.api.auth.documents import Key  # noqa: PLC0415 start-up time

        return list(map(Key.of, await self._store.keys(None)))

    async def revoke_key(self, id_: KeyId) -> None:
        if not await self._store.revoke(id_, self._author, tenant=None):
            raise CommandFailed(f"there is no key {id_}; `notifier keys list` shows all")

    async def put_tenant(self, name: str, settings: TenantRequest) -> Tenant:
        from notifier.api.auth.documents import Tenant  # noqa: PLC0415 start-up time
        from notifier.api.submission.tenant_settings import (  # noqa: PLC0415
            checked_settings,
        )

        try:
            settings = checked_settings(settings)
        except InvalidNotification as error:
            raise CommandFailed(str(error)) from error
        stored = await self._store.put_tenant(
            tenant_id(name),
            note=settings.note,
            senders=settings.senders,
            locale=settings.locale,
            topics=settings.topics,
            rate_per_s=settings.rate_per_s,
            author=self._author,
        )
        if stored is None:
            raise CommandFailed(
                f"a tenant {name} was deleted, and its notifications are still stored; "
                "take another name"
            )
        return Tenant.of(stored)

    async def tenants(self) -> Sequence[Tenant]:
        from notifier.api.auth.documents import Tenant  # noqa: PLC0415 start-up time

        return list(map(Tenant.of, await self._store.tenants()))

    async def delete_tenant(self, name: str) -> None:
        if refusal := await self._store.delete_tenant(tenant_id(name), self._author):
            raise CommandFailed(f"tenant {name} was not deleted: {refusal}")


class ApiAccess:
    """Implements Access over the API."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def create_key(self, new: NewKey) -> CreatedKey:
        from notifier.api.auth.documents import CreatedKey, KeyRequest  # noqa: PLC0415 start-up

        request = KeyRequest(
            scopes=new.scopes,
            tenant=None if new.tenant is None else tenant_name(new.tenant),
            mode=new.mode,
            rate_per_s=new.rate_per_s,
            note=new.note,
            expires_at=new.expires_at,
        )
        return await self._client.post("/v1/keys", request, CreatedKey)

    async def keys(self) -> Sequence[Key]:
        from notifier.api.auth.documents import Key  # noqa: PLC0415 start-up time

        return await read_all(self._client, "/v1/keys", Key)

    async def revoke_key(self, id_: KeyId) -> None:
        await self._client.delete(f"/v1/keys/{id_}")

    async def put_tenant(self, name: str, settings: TenantRequest) -> Tenant:
        from notifier.api.auth.documents import Tenant  # noqa: PLC0415 start-up time

        return await self._client.put(f"/v1/tenants/{name}", settings, Tenant)

    async def tenants(self) -> Sequence[Tenant]:
        from notifier.api.auth.documents import Tenant  # noqa: PLC0415 start-up time

        return await read_all(self._client, "/v1/tenants", Tenant)

    async def delete_tenant(self, name: str) -> None:
        await self._client.delete(f"/v1/tenants/{name}")
