"""Loads the settings: defaults < TOML file < `.env` < environment < command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec

from notifier.settings.checks import check
from notifier.settings.convert import read_struct
from notifier.settings.layers import Layers
from notifier.settings.problems import Problems
from notifier.settings.sources import CONFIG, Entry, read_dotenv, read_environment, read_toml
from notifier.settings.tree import Settings

# An installed package has a copy; a checkout has only the file that people edit.
_PACKAGED: Final = Path(__file__).with_name("default.toml")
_CHECKOUT: Final = Path(__file__).parents[2] / "config" / "notifier.toml"
_FOUND: Final = Path("config", "notifier.toml")
_REPLACED_AS_A_WHOLE: Final = ("channels", "providers")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where each dotted key was set. Keys with their default are missing."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    environ: Mapping[str, str], *, cwd: Path, overrides: Mapping[str, object] | None = None
) -> Settings:
    """Load all settings. `overrides` are dotted keys of the command line; None means "not given".

    Raises ConfigError, whose message has one line for each problem.
    """
    return load_with_origins(environ, cwd=cwd, overrides=overrides).settings


def load_with_origins(
    environ: Mapping[str, str], *, cwd: Path, overrides: Mapping[str, object] | None = None
) -> Loaded:
    """Load all settings as `load_settings`, together with the origin of each key."""
    problems = Problems()
    layers = Layers(msgspec.to_builtins(Settings()), problems)
    dotenv = read_dotenv(cwd / ".env", problems)
    for layer in _files(environ.get(CONFIG) or dotenv.get(CONFIG), cwd, problems):
        layers.add(layer)
    for variables, place in ((dotenv, " in .env"), (environ, "")):
        known = layers.variables()
        layers.add(read_environment(variables, known, cwd=cwd, place=place, problems=problems))
    layers.add(_command_line(overrides or {}))
    settings = read_struct(layers.values, Settings, "", problems)
    if settings is not None:
        check(settings, problems)
    problems.raise_if_any()
    return Loaded(cast("Settings", settings), problems.origins)


def _files(named: str | None, cwd: Path, problems: Problems) -> Iterator[list[Entry]]:
    """Yield the packaged defaults, then the file that is named or found in `cwd`.

    A file with channels or providers replaces all default ones.
    """
    chosen = cwd / (named or _FOUND)
    entries = read_toml(chosen, problems, is_optional=not named)
    replaced = {entry.path[0] for entry in entries}
    packaged = _PACKAGED if _PACKAGED.is_file() else _CHECKOUT
    yield [
        entry
        for entry in read_toml(packaged, problems)
        if entry.path[0] in _REPLACED_AS_A_WHOLE and entry.path[0] not in replaced
    ]
    yield entries


def _command_line(overrides: Mapping[str, object]) -> list[Entry]:
    return [
        Entry(tuple(key.split(".")), value, "command line")
        for key, value in overrides.items()
        if value is not None
    ]
