"""Merges layers of settings and records where each key was set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from notifier.settings.problems import Problems
from notifier.settings.sources import CONFIG, PREFIX, SHORT_NAMES, Entry
from notifier.settings.tree import ChannelSettings


@dataclass(frozen=True, slots=True)
class Layers:
    """The merged values as nested tables."""

    values: dict[str, object]
    problems: Problems

    def add(self, layer: Iterable[Entry]) -> None:
        """Merge a layer that overrides the layers so far, and report keys that it sets twice."""
        keys: dict[str, str] = {}
        for entry in layer:
            key = self._set(entry)
            spelling = ".".join(entry.path)
            if key in keys:
                self.problems.add(key, f"is set twice, as {keys[key]} and {spelling}; remove one")
            keys[key] = spelling

    def variables(self) -> list[str]:
        """Return the name of every variable that sets a known key."""
        channels = self.values["channels"]
        optional = (
            ("channels", channel, field)
            for channel in (channels if isinstance(channels, dict) else ())
            for field in ChannelSettings.__struct_fields__
        )
        paths = [*_paths(self.values), *optional]
        return [CONFIG, *SHORT_NAMES, *(PREFIX + "__".join(path).upper() for path in paths)]

    def _set(self, entry: Entry) -> str:
        """Set the value and return its dotted key as the tables spell it."""
        origins = self.problems.origins
        table, path = self.values, list[str]()
        for name in entry.path[:-1]:
            path.append(_existing_name(table, name))
            origins.setdefault(".".join(path), entry.origin)
            inner = table.setdefault(path[-1], {})
            if not isinstance(inner, dict):
                origins[key := ".".join(entry.path)] = entry.origin
                self.problems.add(key, f"unknown key, {'.'.join(path)} is not a table")
                return key
            table = inner
        name = _existing_name(table, entry.path[-1])
        origins[key := ".".join([*path, name])] = entry.origin
        if entry.value == {}:  # a table whose lines are all commented out removes nothing
            table.setdefault(name, {})
        else:
            table[name] = entry.value
        return key


def _existing_name(table: Mapping[str, object], name: str) -> str:
    """Return the name as the table spells it: a variable cannot contain `-` or lower case."""
    if name in table:
        return name
    plain = name.lower().replace("-", "_")
    return next((known for known in table if known.lower().replace("-", "_") == plain), name)


def _paths(table: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in _paths(value))
        else:
            yield (name,)
