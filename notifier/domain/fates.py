"""The fate of a message is fixed by its recipient, so that a test can choose it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Fate(StrEnum):
    """How the calls for one recipient end, and what receipts the sandbox sends after them."""

    OK = "ok"
    REFUSE = "refuse"
    FLAKY = "flaky-2"
    THROTTLE = "throttle-2"
    DOWN = "down"
    HANG = "hang"
    CUT = "cut"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    DOUBLED = "doubled"
    SHUFFLED = "shuffled"


class ResponseKind(StrEnum):
    """How one call ends."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    THROTTLE = "throttle"
    UNAVAILABLE = "unavailable"
    HANG = "hang"
    CUT = "cut"


PHONES: Final = "+15005550"
_FATES_BY_DIGIT: Final = {
    "1": Fate.REFUSE,
    "2": Fate.FLAKY,
    "3": Fate.THROTTLE,
    "4": Fate.DOWN,
    "5": Fate.HANG,
    "6": Fate.OK,
    "7": Fate.CUT,
    "8": Fate.DELIVERED,
    "9": Fate.BOUNCED,
}
_FATES_BY_NAME: Final = {fate.value: fate for fate in Fate}
_FAILING_CALLS: Final = 2
"""The number of calls of one notification that `flaky-2` and `throttle-2` refuse."""


def fate_of_address(address: str) -> Fate:
    """The fate of an email address: its local part up to a `+`, as in `down+1@example.com`."""
    local = address.rpartition("@")[0].partition("+")[0]
    return _FATES_BY_NAME.get(local.strip('"').lower(), Fate.OK)


def fate_of_phone(number: str) -> Fate:
    """The fate of a phone number: the last digit of `+15005550xxx`. Other numbers are `ok`."""
    if not number.startswith(PHONES):
        return Fate.OK
    return _FATES_BY_DIGIT.get(number[-1], Fate.OK)


def fate_of_token(token: str) -> Fate:
    """The fate of a device token: `fate-<name>-anything`. Other tokens are `ok`."""
    if not token.startswith("fate-"):
        return Fate.OK
    named = (fate for fate in Fate if f"{token}-".startswith(f"fate-{fate}-"))
    return next(named, Fate.OK)


def fate_of(recipient: str) -> Fate:
    """The fate of a recipient of any kind, told by its form."""
    if "@" in recipient:
        return fate_of_address(recipient)
    return fate_of_phone(recipient) if recipient.startswith("+") else fate_of_token(recipient)


def response_kind(fate: Fate, earlier_calls: int) -> ResponseKind:
    """How a call with this fate ends after `earlier_calls` of the same notification."""
    match fate:
        case (
            Fate.OK
            | Fate.DELIVERED
            | Fate.BOUNCED
            | Fate.COMPLAINED
            | Fate.UNSUBSCRIBED
            | Fate.DOUBLED
            | Fate.SHUFFLED
        ):
            return ResponseKind.ACCEPT
        case Fate.REFUSE:
            return ResponseKind.REFUSE
        case Fate.FLAKY:
            is_failing = earlier_calls < _FAILING_CALLS
            return ResponseKind.UNAVAILABLE if is_failing else ResponseKind.ACCEPT
        case Fate.THROTTLE:
            is_failing = earlier_calls < _FAILING_CALLS
            return ResponseKind.THROTTLE if is_failing else ResponseKind.ACCEPT
        case Fate.DOWN:
            return ResponseKind.UNAVAILABLE
        case Fate.HANG:
            return ResponseKind.HANG
        case Fate.CUT:
            return ResponseKind.CUT
