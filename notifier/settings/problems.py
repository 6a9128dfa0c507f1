"""What is wrong with the settings: collected, so that all of it is said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from notifier.domain.errors import ConfigError
from notifier.settings.secrets import shown_wrong


@dataclass(slots=True)
class Problems:
    """A list that becomes one ConfigError. `origins` says where a dotted key was set."""

    origins: Mapping[str, str] = field(default_factory=dict)
    found: list[tuple[str, str]] = field(default_factory=list)

    def wrong(self, key: str, got: object, expected: str) -> None:
        """A key has a value that cannot be."""
        self.add(key, f"got {shown_wrong(key, got)}, expected {expected}")

    def missing(self, key: str, expected: str) -> None:
        """A key that must be set is not."""
        self.add(key, f"is not set, expected {expected}")

    def unknown(self, key: str, known: Iterable[str], *, what: str = "unknown key") -> None:
        """A key, or a name, that does not exist; the nearest known one is offered."""
        self.add(key, f"{what}{did_you_mean(key.rpartition('.')[2], known)}")

    def add(self, key: str, message: str) -> None:
        """Any other problem of a key."""
        origin = self._origin(key)
        place = f"{key} ({origin})" if origin and origin != key else key
        self.found.append((key, f"{place}: {message}"))

    def _origin(self, key: str) -> str:
        """Where the key, or the nearest table around it, was set."""
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, "")

    def raise_if_any(self) -> None:
        """One ConfigError with a line for each problem, if there is one."""
        if self.found:
            raise ConfigError("\n".join(line for _, line in self.found), key=self.found[0][0])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean "x"?` for the nearest known name; else the few there are; else nothing."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f', did you mean "{near[0]}"?'
    return f", known: {', '.join(names)}" if 0 < len(names) <= 12 else ""  # noqa: PLR2004 a line
