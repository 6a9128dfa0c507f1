"""`migrate` and `check-config`: before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from cyclopts import Parameter
from msgspec import structs

from notifier.cli.configured import loaded_settings, require_urls, settings_with
from notifier.cli.options import AsJson
from notifier.cli.show import print_json, print_settings
from notifier.domain.errors import ConfigError
from notifier.settings import Settings, convert_table, masked


def migrate(
    *,
    database: Annotated[
        str | None, Parameter(help="URL of the Postgres to bring up to date.")
    ] = None,
) -> None:
    """Bring the database's tables up to date."""
    settings = settings_with({"database.url": database})
    require_urls(settings, "database")
    from notifier.adapters.postgres.migrate import migrate as apply  # noqa: PLC0415 start-up time

    revisions = apply(settings.database.url)
    for revision in revisions:
        print(f"applied {revision}")
    if not revisions:
        print("already up to date")


def check_config(*, json: AsJson = False) -> None:
    """Show every setting, where it comes from, and what is wrong with it."""
    loaded = loaded_settings()
    rows = [
        (key, value, loaded.origins.get(key, "default"))
        for key, value in _flat(with_providers(loaded.settings))
    ]
    if json:
        print_json([{"key": key, "value": value, "from": origin} for key, value, origin in rows])
    else:
        print_settings(rows)


def with_providers(settings: Settings) -> Settings:
    """The settings with every provider's table checked and complete.

    Raises ConfigError with every problem of every provider.
    """
    from notifier.adapters.providers.registry import PROVIDER_TYPES  # noqa: PLC0415 start-up time

    tables: dict[str, Mapping[str, object]] = {}
    problems: list[ConfigError] = []
    for name, raw in settings.providers.items():
        try:
            made = convert_table(raw, PROVIDER_TYPES, key=f"providers.{name}")
            tables[name] = msgspec.to_builtins(made)
        except ConfigError as error:
            problems.append(error)
    if problems:
        raise ConfigError("\n".join(map(str, problems)), key=problems[0].key)
    return structs.replace(settings, providers=tables)


def _flat(settings: Settings) -> Iterator[tuple[str, object]]:
    """Every dotted key with its value, secrets masked."""
    yield from _leaves("", msgspec.to_builtins(settings))


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), inner)
    else:
        yield key, masked(key, value)
