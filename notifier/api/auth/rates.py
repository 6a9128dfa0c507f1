"""Holds each key and each tenant to its rate, which all API processes share.

A call is paid from the tokens that this process has already, else together with the calls that
arrive meanwhile, in one statement for all. Keys and tenants without a rate cost nothing. In the
table of rates a tenant has a name that is no id of a key.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from notifier.delivery.group_commit import GroupCommit
from notifier.domain.credentials import KeyId
from notifier.domain.errors import StoreUnavailable
from notifier.domain.key_rate import UNUSED_S, Balance, RateHolder, burst, slice_tokens
from notifier.lifecycle import Clock, uptime_s
from notifier.ports.keys import TokenReply, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from notifier.domain.credentials import Mode
    from notifier.domain.keys import Key
    from notifier.domain.tenants import Tenant
    from notifier.ports.keys import KeyRateStore

MAX_BUCKETS: Final = 10_000
NO_BALANCE: Final = Balance(rate_per_s=inf, left=inf)


class _Charge(NamedTuple):
    key: KeyId
    rate_per_s: float
    cost: float


@dataclass(slots=True)
class _Bucket:
    """The tokens that this process holds until `keep_until`, and what `left` was at `asked_at`."""

    tokens: float = 0.0
    keep_until: float = -inf
    left: float = inf
    asked_at: float = -inf

    def held(self, now: float) -> float:
        """The tokens that may still be spent."""
        return self.tokens if now <= self.keep_until else 0.0


class KeyRates:
    """Charges calls to keys. `clock` counts seconds."""

    def __init__(self, store: KeyRateStore, *, deadline_s: float, clock: Clock = uptime_s) -> None:
        self._store = store
        self._deadline_s = deadline_s
        self._clock = clock
        self._buckets: dict[KeyId, _Bucket] = {}
        self._charges = GroupCommit[_Charge, Balance]("key rates", self._take)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask Postgres for tokens until `stop`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._charges.run(), name="key rates")
            await stop.wait()
            self._charges.close()

    async def charge(self, key: Key, cost: float) -> Balance:
        """Charge a call. It has passed if the balance says no `retry_after_s`.

        Raises StoreUnavailable if Postgres does not answer in time.
        """
        return await self._charge(key.id, key.rate_per_s, cost)

    async def charge_tenant(self, tenant: Tenant, mode: Mode, cost: float) -> Balance:
        """Charge the submit of a key of this mode to its tenant, as `charge` does."""
        bucket = KeyId(f"tenant/{mode}/{tenant.id}")
        balance = await self._charge(bucket, tenant.rate_per_s, cost)
        return replace(balance, holder=RateHolder.TENANT)

    async def _charge(self, bucket: KeyId, rate: float | None, cost: float) -> Balance:
        if rate is None:
            return NO_BALANCE
        charge = _Charge(bucket, rate, cost)
        if balance := self._pay(charge, self._bucket(bucket)) or self._empty(charge):
            return balance
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._charges.put(charge)
        except TimeoutError as error:
            raise StoreUnavailable("no answer for the rate of a key") from error

    def _bucket(self, key: KeyId) -> _Bucket:
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.clear()
        return self._buckets.setdefault(key, _Bucket())

    def _pay(self, charge: _Charge, bucket: _Bucket) -> Balance | None:
        """Pay from the tokens that this process holds; None if there are too few."""
        if bucket.held(self._clock()) < charge.cost:
            return None
        bucket.tokens -= charge.cost
        return Balance(rate_per_s=charge.rate_per_s, left=self._left(charge))

    def _empty(self, charge: _Charge) -> Balance | None:
        """Refuse without asking while the last reply says that there is not one token."""
        return self._refused(charge) if self._left(charge) < 1 else None

    def _refused(self, charge: _Charge) -> Balance:
        left = self._left(charge)
        needed = min(charge.cost, burst(charge.rate_per_s))
        retry_after_s = max((needed - left) / charge.rate_per_s, 0.001)
        return Balance(rate_per_s=charge.rate_per_s, left=left, retry_after_s=retry_after_s)

    def _left(self, charge: _Charge) -> float:
        """What is left of the rate now, at most: others may have taken more since."""
        bucket = self._bucket(charge.key)
        back = (self._clock() - bucket.asked_at) * charge.rate_per_s
        return min(bucket.left + back, burst(charge.rate_per_s)) + bucket.held(self._clock())

    async def _take(self, charges: Sequence[_Charge]) -> Sequence[Balance]:
        by_key: dict[KeyId, list[_Charge]] = {}
        for charge in charges:
            by_key.setdefault(charge.key, []).append(charge)
        replies = await self._store.take(
            [self._request(key, waiting) for key, waiting in by_key.items()]
        )
        now = self._clock()
        for key, reply in replies.items():
            self._note(self._bucket(key), reply, now)
        return [
            self._pay(charge, self._bucket(charge.key)) or self._refused(charge)
            for charge in charges
        ]

    def _request(self, key: KeyId, waiting: Sequence[_Charge]) -> TokenRequest:
        rate, held = waiting[0].rate_per_s, self._bucket(key).held(self._clock())
        wanted = sum(charge.cost for charge in waiting) + slice_tokens(rate)
        return TokenRequest(
            key=key,
            rate_per_s=rate,
            first=max(waiting[0].cost - held, 0.0),
            wanted=max(wanted - held, 0.0),
        )

    @staticmethod
    def _note(bucket: _Bucket, reply: TokenReply, now: float) -> None:
        bucket.tokens = bucket.held(now) + reply.granted
        bucket.keep_until = now + UNUSED_S
        bucket.left, bucket.asked_at = reply.left, now
