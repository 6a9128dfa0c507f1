"""All keys and tenants, in the memory of this process: read at each change, at least every 4 s.

While Postgres is unreachable the last read stays in force: known keys hold, and a key that is not
known cannot be judged. So a revoked key is refused within 5 s wherever Postgres answers.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

import structlog

from notifier.domain.credentials import NO_CREDENTIAL, parse_credential
from notifier.domain.errors import StoreError
from notifier.domain.keys import find_key
from notifier.domain.tenants import DEFAULT_TENANT
from notifier.lifecycle import Clock, uptime_s

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from notifier.domain.credentials import KeyId
    from notifier.domain.keys import Key
    from notifier.domain.tenants import TenantId
    from notifier.ports.keys import KeyReader

READ_INTERVAL_S: Final = 4.0
MIN_READ_INTERVAL_S: Final = 0.25
"""Between two reads for unknown keys: whoever guesses keys does not load Postgres."""
USED_INTERVAL_S: Final = 60.0
_MAKE_ONE: Final = "every request gets 401: `notifier keys create --database` makes the first key"

log = structlog.get_logger(__name__)


class Keyring:
    """Finds the key of a request. `clock` counts seconds, also while the machine is suspended."""

    def __init__(self, store: KeyReader, *, clock: Clock = uptime_s) -> None:
        self._store = store
        self._clock = clock
        self._keys: Mapping[KeyId, Key] = {}
        self._tenants: Collection[TenantId] = frozenset()
        self._expires_at: Mapping[KeyId, float] = {}
        self._read_at = -inf
        self._reading = asyncio.Lock()
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
        """Read all keys. Raises StoreUnavailable."""
        asked_at = self._clock()
        stored = await self._store.read()
        self._keys = {key.id: key for key in stored.keys}
        self._tenants = frozenset(stored.tenants)
        # From before the read: a key never holds for longer than it is meant to.
        self._expires_at = {
            key.id: asked_at + (key.expires_at - stored.now).total_seconds()
            for key in stored.keys
            if key.expires_at is not None
        }
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
        key = find_key(text, self._keys)
        if key is None and self._may_be_new(text):
            await self._read_again(self._clock())
            key = find_key(text, self._keys)
        if key is None:
            return None
        now = self._clock()
        if now >= self._expires_at.get(key.id, inf):
            return None
        self._used_at[key.id] = now
        return key

    async def unknown_tenants(self, tenants: Collection[TenantId]) -> Collection[TenantId]:
        """Return those that do not exist; the default tenant always does.

        Raises StoreUnavailable if Postgres cannot be asked for one that is not known.
        """
        unknown = frozenset(tenants) - {DEFAULT_TENANT, *self._tenants}
        if unknown:
            await self._read_again(self._clock())
        return unknown.difference(self._tenants)

    def holds(self, key: Key) -> bool:
        """Whether a key that was found before is still neither revoked nor expired."""
        return key.id in self._keys and self._clock() < self._expires_at.get(key.id, inf)

    def key(self, id_: KeyId) -> Key | None:
        """Return the key with this id, unless it has expired."""
        key = self._keys.get(id_)
        return key if key is not None and self.holds(key) else None

    def _may_be_new(self, text: str) -> bool:
        credential = parse_credential(text)
        return credential is not NO_CREDENTIAL and credential.id not in self._keys

    async def _read_again(self, asked_at: float) -> None:
        """Read all keys, unless that was done since `asked_at`."""
        async with self._reading:
            if self._read_at >= asked_at:
                return
            await asyncio.sleep(self._read_at + MIN_READ_INTERVAL_S - self._clock())
            await self.read()

    async def _note_used(self) -> None:
        now, used_at = self._clock(), self._used_at
        await self._store.note_used({id_: now - at for id_, at in used_at.items()})
        self._noted_at = now
        self._used_at = {id_: at for id_, at in self._used_at.items() if at > now}

    def _note_failure(self, reason: str) -> None:
        if not self._failure:
            log.warning("keys_read_failed", reason=reason, known=len(self._keys))
        self._failure = reason
