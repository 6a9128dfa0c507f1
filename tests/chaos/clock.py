"""A process with a wrong clock: every wall-clock reading is shifted by a span."""

from __future__ import annotations

import time
from uuid import UUID

import uuid_utils.compat


def shift(off_s: float) -> None:
    """Shift the wall clock by `off_s` seconds; the monotonic clock stays, as after a bad NTP.

    UUIDs are made in Rust, which reads the system clock itself, so uuid7 gets the shifted time.
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
