"""How long a provider call took. Pure."""

from __future__ import annotations

import msgspec


class AttemptTiming(msgspec.Struct, frozen=True):
    """The seconds that a provider call occupied its consumer, and whether the provider answered."""

    seconds: float
    answered: bool
