"""How long an attempt and its provider call took. Pure."""

from __future__ import annotations

import msgspec


class AttemptTiming(msgspec.Struct, frozen=True):
    """The seconds one attempt occupied its consumer, and whether the provider answered.

    `call_s` is the part of the seconds that the provider call took; 0 if it was not called.
    """

    seconds: float
    answered: bool
    call_s: float = 0.0
