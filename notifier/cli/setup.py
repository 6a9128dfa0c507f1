"""`migrate` and `check-config`: the commands to run before the first start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from msgspec import structs

from notifier.cli.environment import (
    read_settings,
    read_settings_with_origins,
    require_urls,
)
from notifier.cli.messages import print_message
from notifier.cli.options import AsJson
from notifier.cli.running import run_async
from notifier.cli.show import print_json, print_settings
from notifier.domain.errors import ConfigError
from notifier.settings import Settings, masked

_KEYS_REVISION: Final = "0007"
"""With it the API begins to ask for keys."""


def migrate(
    *,
    database: Annotated[str | None, Parameter(help="URL of the Postgres database.")] = None,
) -> None:
    """Create the database's tables, or update them to this version."""
    settings = read_settings({"database.url": database})
    require_urls(settings, "database")
    from notifier.adapters.postgres.migrate import migrate as apply  # noqa: PLC0415 start-up time

    revisions = apply(settings.database.url)
    for revision in revisions:
        print(f"applied {revision}")
    if not revisions:
        print("already up to date")
    if _KEYS_REVISION in revisions:
        print_message(
            "the API asks for keys: `notifier keys create --database` makes the first one, "
            'or set api.auth = "off"'
        )


def check_config(*, json: AsJson = False) -> None:
    """Show every setting and where it comes from, or everything that is wrong."""
    loaded = read_settings_with_origins()
    rows = [
        (key, value, loaded.origins.get(key, "default"))
        for key, value in _flat(with_provider_defaults(loaded.settings))
    ]
    if json:
        print_json([{"key": key, "value": value, "from": origin} for key, value, origin in rows])
    else:
        print_settings(rows)


def with_provider_defaults(settings: Settings) -> Settings:
    """Check every provider's table and add the defaults of its type.

    Raises ConfigError with all problems of all providers.
    """
    from notifier.adapters.providers.registry import check_settings  # noqa: PLC0415 start-up time
    from notifier.app.providers import provider_of  # noqa: PLC0415

    tables: dict[str, Mapping[str, object]] = {}
    problems: list[ConfigError] = []
    for name in settings.providers:
        try:
            provider = provider_of(settings, name)
            run_async(check_settings(name, provider))
            tables[name] = msgspec.to_builtins(provider)
        except ConfigError as error:
            problems.append(error)
    if problems:
        raise ConfigError("\n".join(map(str, problems)), key=problems[0].key)
    return structs.replace(settings, providers=tables)


def _flat(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield every dotted key with its value; secrets are masked."""
    yield from _leaves("", msgspec.to_builtins(settings))


def _leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), inner)
    else:
        yield key, masked(key, value)
