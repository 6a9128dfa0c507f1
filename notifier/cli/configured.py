"""The settings as a command sees them: the one place where the environment is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from notifier.domain.errors import ConfigError
from notifier.settings import Loaded, Settings, load_settings, load_with_origins

_EXAMPLES = {
    "database": ("NOTIFIER_DATABASE_URL", "postgresql://user:password@host/database"),
    "broker": ("NOTIFIER_BROKER_URL", "amqp://user:password@host/vhost"),
}


def settings_with(overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings under these command line options (dotted keys; None was not given)."""
    return load_settings(os.environ, cwd=Path.cwd(), overrides=overrides)


def loaded_settings() -> Loaded:
    """The settings with where each was set."""
    return load_with_origins(os.environ, cwd=Path.cwd())


def require_urls(settings: Settings, *sections: str) -> None:
    """Raise ConfigError, saying what to set, unless the URL of each section is set."""
    missing = [name for name in sections if not getattr(settings, name).url]
    if missing:
        lines = [
            f"{variable} is not set: e.g. {example}"
            for variable, example in (_EXAMPLES[name] for name in missing)
        ]
        raise ConfigError("\n".join(lines), key=f"{missing[0]}.url")


def api_url(given: str | None) -> str:
    """The API to talk to: the one given, else where the settings say it listens."""
    if given is not None:
        return given.rstrip("/")
    api = settings_with().api
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104 not bound
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"
