"""What becomes of a message, fixed by whom it is for, so that a test can ask for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Fate(StrEnum):
    """The fate a recipient carries."""

    OK = "ok"
    REFUSE = "refuse"
    FLAKY = "flaky-2"
    THROTTLE = "throttle-2"
    DOWN = "down"
    HANG = "hang"
    CUT = "cut"


class Kind(StrEnum):
    """How one call is answered."""

    ACCEPT = "accept"
    REFUSE = "refuse"
    THROTTLE = "throttle"
    UNAVAILABLE = "unavailable"
    HANG = "hang"
    CUT = "cut"


PHONES: Final = "+15005550"
_DIGITS: Final = {
    "1": Fate.REFUSE,
    "2": Fate.FLAKY,
    "3": Fate.THROTTLE,
    "4": Fate.DOWN,
    "5": Fate.HANG,
    "6": Fate.OK,
    "7": Fate.CUT,
}
_NAMES: Final = {fate.value: fate for fate in Fate}
_FIRST: Final = 2  # calls of one notification that flaky-2 and throttle-2 turn away


def fate_of_address(address: str) -> Fate:
    """`flaky-2+anything@example.com`: what stands before the `@` and before a `+`."""
    local = address.rpartition("@")[0].partition("+")[0]
    return _NAMES.get(local.strip('"').lower(), Fate.OK)


def fate_of_phone(number: str) -> Fate:
    """`+150055500xx`: the last digit; every other number is `ok`."""
    if not number.startswith(PHONES):
        return Fate.OK
    return _DIGITS.get(number[-1], Fate.OK)


def fate_of_token(token: str) -> Fate:
    """`fate-<name>-anything`; every other token is `ok`."""
    if not token.startswith("fate-"):
        return Fate.OK
    named = (fate for fate in Fate if f"{token}-".startswith(f"fate-{fate}-"))
    return next(named, Fate.OK)


def kind_of(fate: Fate, earlier: int) -> Kind:
    """How a call ends for a notification that made `earlier` calls before."""
    match fate:
        case Fate.OK:
            return Kind.ACCEPT
        case Fate.REFUSE:
            return Kind.REFUSE
        case Fate.FLAKY:
            return Kind.UNAVAILABLE if earlier < _FIRST else Kind.ACCEPT
        case Fate.THROTTLE:
            return Kind.THROTTLE if earlier < _FIRST else Kind.ACCEPT
        case Fate.DOWN:
            return Kind.UNAVAILABLE
        case Fate.HANG:
            return Kind.HANG
        case Fate.CUT:
            return Kind.CUT
