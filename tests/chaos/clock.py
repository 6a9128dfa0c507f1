"""A process whose clock is off: whatever of the product asks for the time, shifted by a span."""

from __future__ import annotations

import time
from uuid import UUID

import uuid_utils.compat


def shift(off_s: float) -> None:
    """Let the wall clock be so much ahead; the monotonic one stays, as after a wrong NTP.

    Ids are made in Rust, which asks the system itself: they are told this process's time.
    """
    now, now_ns, make = time.time, time.time_ns, uuid_utils.compat.uuid7

    def shifted() -> float:
        return now() + off_s

    def shifted_ns() -> int:
        return now_ns() + round(off_s * 1e9)

    def uuid7() -> UUID:
        return make(nanoseconds=shifted_ns())

    time.time, time.time_ns = shifted, shifted_ns
    uuid_utils.compat.uuid7 = uuid7  # type: ignore[assignment]
