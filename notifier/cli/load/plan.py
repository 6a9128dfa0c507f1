"""What a load run submits: a mix of queues, to recipients with a fate in the sandbox."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from notifier.domain.errors import ConfigError
from notifier.domain.notification import Priority
from notifier.settings.problems import did_you_mean

DIGITS: Final = {
    "ok": 6,
    "refuse": 1,
    "flaky-2": 2,
    "throttle-2": 3,
    "down": 4,
    "hang": 5,
    "cut": 7,
}
"""The sandbox's fates, with the last digit of their phone numbers.

A copy of the table in notifier.sandbox, whose import needs the extra `dev`. A test compares them.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The shares of queues and fates, and the kind of address of each channel."""

    mix: Mapping[str, float]
    fates: Mapping[str, float]
    addresses: Mapping[str, str]

    def bodies(self, number: int, random: Random) -> Iterator[dict[str, object]]:
        """Yield `number` bodies of submits. The same random state yields the same bodies."""
        queues, fates = list(self.mix), list(self.fates)
        queue_shares, fate_shares = list(self.mix.values()), list(self.fates.values())
        for count in range(number):
            (queue,) = random.choices(queues, queue_shares)
            (fate,) = random.choices(fates, fate_shares)
            channel, _, priority = queue.rpartition(".")
            yield {
                "channel": channel,
                "priority": priority,
                "recipient": recipient(self.addresses[channel], fate, count),
                "content": {"subject": f"Load {count}", "body": f"Number {count}, fate {fate}."},
            }


def recipient(address: str, fate: str, count: int) -> str:
    """Return a recipient of the given kind of address with this fate in the sandbox."""
    match address:
        case "phone":
            return f"+150055500{count % 10}{DIGITS[fate]}"
        case "token" | "user":
            return f"fate-{fate}-{count:032x}"
        case _:
            return f"{fate}+{count}@example.com"


def read_mix(text: str | None, addresses: Mapping[str, str]) -> dict[str, float]:
    """Read shares of queues: `email.high=1,sms.low=3`. None: all queues with equal shares."""
    queues = [f"{channel}.{priority}" for channel in addresses for priority in Priority]
    return _shares("--mix", text, queues) if text else dict.fromkeys(queues, 1.0)


def read_fates(text: str) -> dict[str, float]:
    """Read shares of fates: `ok=90,flaky-2=5,refuse=2`."""
    return _shares("--fates", text, DIGITS)


def _shares(option: str, text: str, known: Iterable[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in known:
            raise ConfigError(f"{option}: unknown {name!r}{did_you_mean(name, known)}")
        shares[name] = _share(option, name, value or "1")
    if sum(shares.values()) <= 0:
        raise ConfigError(f"{option}: expected a share above 0, got {text!r}")
    return shares


def _share(option: str, name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not math.isfinite(share) or share < 0:
        raise ConfigError(f"{option}: got {name}={value}, expected a number from 0 up")
    return share
