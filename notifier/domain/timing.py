"""How long an attempt occupied its consumer. Pure."""

from __future__ import annotations

import msgspec


class AttemptTiming(msgspec.Struct, frozen=True):
    """The seconds one attempt occupied its consumer, and whether the provider answered."""

    seconds: float
    answered: bool
