"""All keys and tenants, in the memory of this process, which asks for changes at least every 4 s.

It reads all of them only if any has changed, and a key that it does not know by its id: so neither
many keys nor many requests with keys that do not exist cost much. While Postgres is unreachable the
last read stays in force: known keys hold, and a key that is not known cannot be judged. So a
revoked key is refused within 5 s wherever Postgres answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.credentials import NO_CREDENTIAL, parse_credential
from notifier.domain.errors import StoreError, StoreUnavailable
from notifier.domain.keys import find_key
from notifier.domain.tenants import unknown_tenants
from notifier.lifecycle import Clock, uptime_s

if TYPE_CHECKING:
    from collections.abc import Collection

    from notifier.domain.credentials import KeyId
    from notifier.domain.keys import Key
    from notifier.domain.tenants import Tenant, TenantId
    from notifier.ports.keys import KeyReader

READ_INTERVAL_S: Final = 4.0
MIN_READ_INTERVAL_S: Final = 0.25
"""Between two reads for unknown keys or tenants: whoever guesses keys does not load Postgres."""
DEADLINE_S: Final = 5.0
"""How long a request waits at most for a read."""
USED_INTERVAL_S: Final = 60.0
_MAKE_ONE: Final = "every request gets 401: `notifier keys create --database` makes the first key"

log = structlog.get_logger(__name__)


class Keyring:
    """Finds the key of a request. `clock` counts seconds, also while the machine is suspended."""

    def __init__(
        self, store: KeyReader, *, deadline_s: float = DEADLINE_S, clock: Clock = uptime_s
    ) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._clock = clock
        self._keys: dict[KeyId, Key] = {}
        self._verified: dict[str, Key] = {}
        """Keys by their whole text, as requests have them. Only right texts are here, and a lookup
        compares hashes first: its time does not show how much of another text is right."""
        self._tenants: Mapping[TenantId, Tenant] = {}
        self._state: str | None = None
        self._now = datetime.min.replace(tzinfo=UTC)
        """Postgres's time at `_asked_at`, or later."""
        self._asked_at = clock()
        self._read_at = -inf
        """When everything was last asked for; `_looked_at`: any key or tenant that was unknown."""
        self._looked_at = -inf
        self._reading = asyncio.Lock()
        """Held by each read, so that what was read first is also replaced first."""
        self._wanted: set[KeyId] = set()
        self._failed_at = -inf
        self._used_at: dict[KeyId, float] = {}
        self._noted_at = clock()
        self._failure = ""
        self._is_missing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the changes in Postgres until `stop`."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(), name="keys follow")
            await stop.wait()
            following.cancel()

    async def _follow(self) -> None:
        while True:
            await self.run_once()
            await self._store.wait_for_change(READ_INTERVAL_S)

    async def run_once(self) -> None:
        """Read once, and note now and then which keys were used. A failure changes nothing."""
        try:
            await self.read()
            if self._used_at and self._clock() >= self._noted_at + USED_INTERVAL_S:
                await self._note_used()
        except StoreError as error:
            self._note_failure(str(error))

    async def read(self) -> None:
        """Read all keys and tenants, if any has changed. Raises StoreUnavailable."""
        async with self._reading:
            await self._read()

    async def _read(self) -> None:
        asked_at = self._clock()
        state = await self._store.state()
        if state.text != self._state:
            # What changes meanwhile is in both texts, or read again the next time.
            stored = await self._store.read()
            self._keys = {key.id: key for key in stored.keys}
            self._verified = {}
            self._tenants = {tenant.id: tenant for tenant in stored.tenants}
            self._state = state.text
        # From before the read: a key never holds for longer than it is meant to.
        self._now, self._asked_at = state.now, asked_at
        self._read_at = asked_at
        if self._failure:
            log.info("keys_read_recovered")
        self._failure = ""
        if not self._keys and not self._is_missing:
            log.warning("keys_missing", advice=_MAKE_ONE)
        self._is_missing = not self._keys

    async def find(self, text: str) -> Key | None:
        """Return the key that a text holds; None if it holds none, or an expired one.

        Raises StoreUnavailable for a key that is not known, if Postgres cannot be asked for it.
        """
        key = self._verified.get(text) or self._verify(text)
        if key is None and (id_ := self._unknown_id(text)):
            await self._look_up(id_)
            key = self._verify(text)
        return self._used(key)

    def _verify(self, text: str) -> Key | None:
        key = find_key(text, self._keys)
        if key is not None:
            self._verified[text] = key
        return key

    def tenant(self, tenant: TenantId) -> Tenant | None:
        """Return a tenant as read last, None if there is none."""
        return self._tenants.get(tenant)

    def known_tenants(self) -> Collection[TenantId]:
        """Return the tenants that exist, as read last."""
        return self._tenants.keys()

    async def tenants(self, wanted: Collection[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return all tenants, among them those of the wanted ones that exist.

        Raises StoreUnavailable if Postgres cannot be asked for one that is not known.
        """
        if unknown_tenants(wanted, self._tenants):
            asked_at = self._clock()
            async with self._turn(asked_at):
                if self._read_at < asked_at:
                    await self._space_reads()
                    await self._read()
        return self._tenants

    def holds(self, key: Key) -> bool:
        """Whether a key that was found before is still neither revoked nor expired."""
        return key.id in self._keys and (
            key.expires_at is None or self._postgres_time() < key.expires_at
        )

    def key(self, id_: KeyId) -> Key | None:
        """Return the key with this id, unless it has expired. It counts as used."""
        return self._used(self._keys.get(id_))

    def _used(self, key: Key | None) -> Key | None:
        if key is None or not self.holds(key):
            return None
        self._used_at[key.id] = self._clock()
        return key

    def _postgres_time(self) -> datetime:
        return self._now + timedelta(seconds=self._clock() - self._asked_at)

    def _unknown_id(self, text: str) -> KeyId | None:
        credential = parse_credential(text)
        is_new = credential is not NO_CREDENTIAL and credential.id not in self._keys
        return credential.id if is_new else None

    async def _look_up(self, id_: KeyId) -> None:
        """Read this key, together with those that other requests wait for."""
        self._wanted.add(id_)
        async with self._turn(self._clock()):
            if id_ not in self._wanted:
                return
            await self._space_reads()
            wanted, self._wanted = self._wanted, set()
            found = await self._store.find(wanted)
            if self._read_at == -inf:  # expiry cannot be judged yet
                await self._read()
            if found:
                self._keys.update((key.id, key) for key in found)
                # Without them the state may be that of the last read: it has not seen them.
                self._state = None

    async def _space_reads(self) -> None:
        await asyncio.sleep(self._looked_at + MIN_READ_INTERVAL_S - self._clock())
        self._looked_at = self._clock()

    @asynccontextmanager
    async def _turn(self, asked_at: float) -> AsyncIterator[None]:
        """Hold the lock for a read, for the request's deadline at most.

        A failure since `asked_at` is the answer to all who waited meanwhile: each of them would
        otherwise wait for a failure of its own, one after the other. Raises StoreUnavailable.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._reading:
                if self._failed_at >= asked_at:
                    raise StoreUnavailable("the keys could not be read")
                try:
                    yield
                except BaseException:
                    self._failed_at = self._clock()
                    raise
        except TimeoutError as error:
            raise StoreUnavailable("no answer for a key") from error

    async def _note_used(self) -> None:
        now, used_at = self._clock(), self._used_at
        await self._store.note_used({id_: now - at for id_, at in used_at.items()})
        self._noted_at = now
        self._used_at = {id_: at for id_, at in self._used_at.items() if at > now}

    def _note_failure(self, reason: str) -> None:
        if not self._failure:
            log.warning("keys_read_failed", reason=reason, known=len(self._keys))
        self._failure = reason
