"""Which webhooks may be called now, by what their last calls resulted in. Pure.

Calls of all webhooks share the consumers of one channel. A webhook that does not answer would take
all of them, for as long as its calls last. So a webhook gets one call at a time until one has
succeeded since the last failure. Those that fail get a fifth of the calls together, and those that
are not known to answer soon, with these, half of them. After failures a webhook rests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

MIN_PARKED_S: Final = 0.25
MAX_PARKED_S: Final = 900.0
"""A call that may not be made now is looked at again after a quarter of an hour at most. With
100,000 that wait for one webhook these are about 150 a second."""
MAX_REST_S: Final = 300.0
FIRST_REST_S: Final = 1.0
MAX_DOUBLINGS: Final = 16
ASSUMED_CALL_S: Final = 0.25
"""How long a call takes, until one was answered."""
SLOW_S: Final = 1.0
"""A webhook whose calls take longer, on average, is slow."""
SMOOTHING: Final = 0.2
MAX_KNOWN: Final = 10_000
"""Webhooks that are remembered. Then those without a call and a rest are forgotten."""


class Trust(Enum):
    """What the last calls of a webhook say of its next one.

    PROMPT: it will succeed, and soon. UNCERTAIN: none was made yet, or they take long.
    """

    PROMPT = "prompt"
    UNCERTAIN = "uncertain"
    FAILING = "failing"


@dataclass(slots=True)
class _Endpoint:
    """What is known of one webhook. All instants are of the monotonic clock."""

    calls: int = 0
    is_proven: bool = False
    failures: int = 0
    rested_at: float = 0.0
    rest_until: float = 0.0
    next_slot_at: float = 0.0
    call_s: float = ASSUMED_CALL_S

    @property
    def trust(self) -> Trust:
        """What its last calls say of the next one."""
        if self.failures:
            return Trust.FAILING
        return Trust.PROMPT if self.is_proven and self.call_s <= SLOW_S else Trust.UNCERTAIN


class CallLimits:
    """Counts the calls of each webhook. `most` is how many calls may be made at once in all."""

    def __init__(self, *, per_endpoint: int, most: int) -> None:
        self._per_endpoint = per_endpoint
        self._most_not_prompt = max(1, most // 2)
        self._most_failing = max(1, most // 5)
        self._calls: Counter[Trust] = Counter()
        self._endpoints: dict[UUID, _Endpoint] = {}

    def parking_s(self, webhook: UUID, now: float, draw: float) -> float | None:
        """Return None if a call may begin now; else for how many seconds it must be put off.

        Calls that are put off come back at about the rate at which the webhook takes them. `draw`
        is a random number from 0 to 1.
        """
        endpoint = self._endpoints.get(webhook)
        if endpoint is None:
            endpoint = self._add(webhook)
        if now >= endpoint.rest_until and self._has_room(endpoint):
            return None
        limit = self._per_endpoint if endpoint.is_proven else 1
        begin = max(now, endpoint.rest_until, endpoint.next_slot_at)
        slot_at = begin + endpoint.call_s / limit
        if slot_at - now > MAX_PARKED_S:
            return MAX_PARKED_S * (0.5 + 0.5 * draw)
        endpoint.next_slot_at = slot_at
        return max(MIN_PARKED_S, slot_at - now)

    def begin(self, webhook: UUID) -> Trust:
        """Count a call; returns as what it is counted."""
        endpoint = self._endpoints.get(webhook) or self._add(webhook)
        endpoint.calls += 1
        self._calls[endpoint.trust] += 1
        return endpoint.trust

    def end(self, webhook: UUID, counted_as: Trust) -> None:
        """Count that a call ended, whatever became of it. `counted_as` is what `begin` said."""
        self._endpoints[webhook].calls -= 1
        self._calls[counted_as] -= 1

    def succeeded(self, webhook: UUID, call_s: float) -> None:
        """A call succeeded, which took so long."""
        endpoint = self._endpoints[webhook]
        if not endpoint.is_proven:
            endpoint.next_slot_at = 0.0
        endpoint.is_proven, endpoint.failures, endpoint.rest_until = True, 0, 0.0
        endpoint.call_s += SMOOTHING * (call_s - endpoint.call_s)

    def failed(self, webhook: UUID, started_at: float, now: float) -> None:
        """A call failed. Those that began before the last rest count as one with its failure."""
        endpoint = self._endpoints[webhook]
        endpoint.is_proven = False
        if started_at < endpoint.rested_at:
            return
        rest_s = FIRST_REST_S * (1 << min(endpoint.failures, MAX_DOUBLINGS))
        endpoint.failures += 1
        endpoint.rested_at = now
        endpoint.rest_until = now + min(MAX_REST_S, rest_s)

    def _has_room(self, endpoint: _Endpoint) -> bool:
        if endpoint.calls >= (self._per_endpoint if endpoint.is_proven else 1):
            return False
        trust, failing = endpoint.trust, self._calls[Trust.FAILING]
        if trust is Trust.PROMPT:
            return True
        if trust is Trust.FAILING and failing >= self._most_failing:
            return False
        return failing + self._calls[Trust.UNCERTAIN] < self._most_not_prompt

    def _add(self, webhook: UUID) -> _Endpoint:
        if len(self._endpoints) >= MAX_KNOWN:
            self._endpoints = {
                id_: each for id_, each in self._endpoints.items() if each.calls or each.failures
            }
        return self._endpoints.setdefault(webhook, _Endpoint())
