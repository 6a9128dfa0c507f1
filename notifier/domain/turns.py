"""Turns: parts of a queue that are read beside each other. Pure.

No tenant waits for all rows of another.

Turn 0 is read by every version. It has the first rows of each tenant, and all rows of a deployment
with one tenant. What a tenant submits beyond these is stored in the turn of its name.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from notifier.domain.tenants import TenantId

FIRST_TURN: Final = 0
TURNS: Final = 64
"""The numbers of turns are below this one. They are stored in the column `turn` of `live`."""
MAX_CACHED: Final = 10_000


@lru_cache(MAX_CACHED)
def turn_of(tenant: TenantId) -> int:
    """Return the turn of a tenant, from 1 on; some share one. sql/retry.sql does the same."""
    return 1 + sha256(tenant.encode()).digest()[0] % (TURNS - 1)
