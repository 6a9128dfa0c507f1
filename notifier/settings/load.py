"""The settings, read once: defaults < TOML file < `.env` < environment < command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec

from notifier.settings.checks import check
from notifier.settings.convert import read_struct
from notifier.settings.problems import Problems, did_you_mean
from notifier.settings.sources import (
    CONFIG,
    PREFIX,
    SHORT,
    Entry,
    read_dotenv,
    read_environment,
    read_toml,
)
from notifier.settings.tree import ChannelSettings, Settings

# An installed package carries its own copy; a checkout has the one file that people read.
_PACKAGED: Final = Path(__file__).with_name("default.toml")
_CHECKOUT: Final = Path(__file__).parents[2] / "config" / "notifier.toml"
_NAMED: Final = ("channels", "providers")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each dotted key that was set, where."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    environ: Mapping[str, str], *, cwd: Path, overrides: Mapping[str, object] | None = None
) -> Settings:
    """All settings. `overrides` are dotted keys from the command line; None means "not given".

    Raises ConfigError, whose message has one line for each problem there is.
    """
    return load_with_origins(environ, cwd=cwd, overrides=overrides).settings


def load_with_origins(
    environ: Mapping[str, str], *, cwd: Path, overrides: Mapping[str, object] | None = None
) -> Loaded:
    """As `load_settings`, with where each key was set."""
    origins: dict[str, str] = {}
    problems = Problems(origins)
    tree = cast("dict[str, object]", msgspec.to_builtins(Settings()))
    for layer in _layers(environ, cwd, overrides or {}, problems):
        _merge(tree, layer, origins, problems)
    settings = read_struct(tree, Settings, "", problems)
    if settings is not None:
        check(settings, problems)
    problems.raise_if_any()
    return Loaded(cast("Settings", settings), origins)


def _layers(
    environ: Mapping[str, str],
    cwd: Path,
    overrides: Mapping[str, object],
    problems: Problems,
) -> Iterator[list[Entry]]:
    dotenv = read_dotenv(cwd / ".env", problems)
    yield from _files(environ.get(CONFIG) or dotenv.get(CONFIG), cwd, problems)
    yield read_environment(dotenv, cwd=cwd, where=".env", problems=problems)
    yield read_environment(environ, cwd=cwd, where="", problems=problems)
    given = {key: value for key, value in overrides.items() if value is not None}
    yield [Entry(tuple(key.split(".")), value, "command line") for key, value in given.items()]


def _files(named: str | None, cwd: Path, problems: Problems) -> Iterator[list[Entry]]:
    """The packaged defaults, then the file that was named or found.

    A file with channels or providers of its own replaces the default ones as a whole.
    """
    local = cwd / "config" / "notifier.toml"
    chosen = cwd / named if named else local if local.is_file() else None
    given = read_toml(chosen, problems) if chosen else []
    has = {entry.path[0] for entry in given}
    packaged = _PACKAGED if _PACKAGED.is_file() else _CHECKOUT
    yield [
        entry
        for entry in read_toml(packaged, problems)
        if entry.path[0] in _NAMED and entry.path[0] not in has
    ]
    yield given


def _merge(
    tree: MutableMapping[str, object],
    layer: Iterable[Entry],
    origins: dict[str, str],
    problems: Problems,
) -> None:
    for entry in layer:
        if entry.path[0].startswith(PREFIX):
            name = entry.path[0]
            problems.add(name, f"unknown variable{did_you_mean(name, _variables(tree))}")
        else:
            _put(tree, entry, origins, problems)


def _put(
    tree: MutableMapping[str, object], entry: Entry, origins: dict[str, str], problems: Problems
) -> None:
    table: MutableMapping[str, object] = tree
    path: list[str] = []
    for name in entry.path[:-1]:
        path.append(_spelled(table, name))
        origins.setdefault(".".join(path), entry.origin)
        inner = table.setdefault(path[-1], {})
        if not isinstance(inner, dict):
            origins[key := ".".join(entry.path)] = entry.origin
            problems.unknown(key, (), what=f"unknown key, {'.'.join(path)} is not a table")
            return
        table = inner
    path.append(_spelled(table, entry.path[-1]))
    origins[".".join(path)] = entry.origin
    if entry.value != {}:
        table[path[-1]] = entry.value
    else:  # a table all of whose lines are commented out takes nothing away
        table.setdefault(path[-1], {})


def _spelled(table: Mapping[str, object], name: str) -> str:
    """The name as the table has it: a variable can say neither `-` nor upper and lower case."""
    if name in table:
        return name
    plain = name.lower().replace("-", "_")
    return next((one for one in table if one.lower().replace("-", "_") == plain), name)


def _variables(tree: Mapping[str, object]) -> list[str]:
    """Every variable that could be set."""
    return [CONFIG, *SHORT, *(PREFIX + "__".join(path).upper() for path in _paths(tree))]


def _paths(table: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in _paths(value))
            if "address" in value and "provider" in value:
                yield from ((name, field) for field in ChannelSettings.__struct_fields__)
        else:
            yield (name,)
