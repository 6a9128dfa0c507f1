"""Reads the settings for a command. The only module that reads the environment."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from notifier.domain.credentials import NO_CREDENTIAL, parse_credential
from notifier.domain.errors import ConfigError
from notifier.settings import Loaded, Settings, load_settings, load_with_origins

_KEY_VARIABLE = "NOTIFIER_CLIENT__KEY"
_EXAMPLES = {
    "database": ("NOTIFIER_DATABASE_URL", "postgresql://user:password@host/database"),
    "broker": ("NOTIFIER_BROKER_URL", "amqp://user:password@host/vhost"),
}


def read_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Return the settings. `overrides` are command line options by dotted key; None: not given."""
    return load_settings(os.environ, cwd=_working_directory(), overrides=overrides)


def read_settings_with_origins() -> Loaded:
    """Return the settings and where each key was set."""
    return load_with_origins(os.environ, cwd=_working_directory())


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the working directory cannot be used: {error.strerror}; change to another one"
        ) from error


def require_urls(settings: Settings, *sections: str) -> None:
    """Raise ConfigError, which names the variable to set, unless each section has its URL."""
    missing = [name for name in sections if not getattr(settings, name).url]
    if missing:
        lines = [
            f"{variable} is not set: e.g. {example}"
            for variable, example in (_EXAMPLES[name] for name in missing)
        ]
        raise ConfigError("\n".join(lines), key=f"{missing[0]}.url")


def client_key() -> str:
    """Return the key to send to the API, "" for none. Settings that are wrong have none."""
    try:
        return read_settings().client.key
    except ConfigError:  # a command with --url needs no settings
        return os.environ.get(_KEY_VARIABLE, "")


def use_key_file(path: Path) -> None:
    """Let this process send the key in a file to the API, whatever the settings say.

    Raises ConfigError if there is none in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--key-file: {path} cannot be read: {reason}") from error
    if parse_credential(text) is NO_CREDENTIAL:
        raise ConfigError(f"--key-file: {path}: expected a key such as ntf_live_...")
    os.environ.pop(f"{_KEY_VARIABLE}_FILE", None)
    os.environ[_KEY_VARIABLE] = text


def person() -> str:
    """Return who runs this command, as the audit names it: `cli:user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return f"cli:{user}@{socket.gethostname()}"


def api_url(given: str | None) -> str:
    """Return the URL of the API: `given`, else `client.url`, else the address of `[api]`."""
    if given is not None:
        return given.rstrip("/")
    try:
        settings = read_settings()
    except ConfigError as error:
        hint = "this command needs no settings with --url http://host:port"
        raise ConfigError(f"{error}\n{hint}", key=error.key) from error
    if settings.client.url:
        return settings.client.url.rstrip("/")
    api = settings.api
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104 compared, not bound
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"
