"""Collects the problems of the settings, so that one error reports all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from notifier.domain.errors import ConfigError
from notifier.domain.similar_names import most_similar
from notifier.settings.secrets import shown


@dataclass(slots=True)
class Problems:
    """Problems by key. `origins` has the place where each dotted key was set."""

    origins: dict[str, str] = field(default_factory=dict)
    found: list[tuple[str, str]] = field(default_factory=list)

    def wrong(self, key: str, value: object, expected: str) -> None:
        """Report a key with a wrong value."""
        self.add(key, f"got {shown(key, value)}, expected {expected}")

    def missing(self, key: str, expected: str) -> None:
        """Report a required key that is not set."""
        self.add(key, f"is not set, expected {expected}")

    def unknown(self, key: str, known: Iterable[str]) -> None:
        """Report a key that does not exist, and suggest the most similar known one."""
        self.add(key, f"unknown key{did_you_mean(key.rpartition('.')[2], known)}")

    def add(self, key: str, message: str) -> None:
        """Report any other problem of a key."""
        origin = self._origin(key)
        place = f"{key} ({origin})" if origin and origin != key else key
        self.found.append((key, f"{place}: {message}"))

    def _origin(self, key: str) -> str:
        """Return where the key, or the nearest table around it, was set."""
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, "")

    def raise_if_any(self) -> None:
        """Raise ConfigError with one line for each problem, if there is any."""
        if self.found:
            raise ConfigError("\n".join(line for _, line in self.found), key=self.found[0][0])


_OTHER_NAMES: Final = {
    "statuses": "answers",
    "errors": "answers",
    "replies": "answers",
    "answers": "replies",
}
"""Earlier names of keys, and the names that the other type of provider has."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean "x"?` for the most similar known name, else a list of a few names.

    Returns "" for more than 12 known names without a similar one.
    """
    names = sorted(known)
    if (other := _OTHER_NAMES.get(name)) in names:
        return f', did you mean "{other}"?'
    if similar := most_similar(name, names):
        return f', did you mean "{similar}"?'
    return f", known: {', '.join(names)}" if 0 < len(names) <= 12 else ""  # noqa: PLR2004 one line
