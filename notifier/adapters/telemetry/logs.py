"""Logs on stderr: one line per event, with its name, keys and values.

Log lines of Notifier and of its libraries have one format. No line may hold a recipient or content;
the libraries are limited to warnings, which name hosts only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Final, Literal, TextIO
from uuid import UUID

import msgspec
import structlog
from structlog.typing import Processor

from notifier.domain.notification import QueueKey

# Below these levels the libraries log noise, or what Notifier logs itself: a driver's connection
# attempts while its server is down, a client's requests with their addresses.
_LIBRARY_LEVELS: Final = {
    "aio_pika": logging.CRITICAL,
    "aiormq": logging.CRITICAL,
    "aiohttp": logging.WARNING,
    "aiosmtpd": logging.WARNING,
    "mail": logging.WARNING,  # a second logger of aiosmtpd, which prints envelopes at INFO
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "uvicorn": logging.WARNING,
}


def configure_logging(
    format: Literal["auto", "json", "console"],  # noqa: A002 the setting's name
    level: Literal["debug", "info", "warning", "error"],
    *,
    stream: TextIO | None = None,
) -> None:
    """Write all logs of the process to `stream` (stderr). `auto` is `console` on a terminal."""
    out = stream or sys.stderr
    is_console = format == "console" or (format == "auto" and out.isatty())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _ids_as_text,
    ]
    after = _console_renderers(out) if is_console else _json_renderers()
    structlog.configure(
        processors=[*before, *after],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _LineWriter(out, *names),
        cache_logger_on_first_use=True,
    )
    _route_stdlib(out, before, after, level.upper())


class _LineWriter:
    """Writes our log lines directly: stdlib logging is slower, and each attempt is logged.

    A failed write is ignored, because logging must not fail the caller: a line that a closed or
    full stream refuses is dropped.
    """

    def __init__(self, out: TextIO, name: str = "notifier") -> None:
        self.name = name
        self._out = out

    def debug(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._out.write(line + "\n")
            self._out.flush()

    info = warning = error = critical = debug


def _route_stdlib(out: TextIO, before: list[Processor], after: list[Processor], level: str) -> None:
    """Write the log records of the libraries to `out`, in our format."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name, min_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(max(min_level, root.level))
    logging.captureWarnings(capture=True)


def _ids_as_text(
    _: object, __: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Format ids and queues here, so that a line below the level costs nothing."""
    for name, value in event.items():
        if isinstance(value, UUID | QueueKey):
            event[name] = str(value)
    return event


def _console_renderers(out: TextIO) -> list[Processor]:
    # The rich traceback prints local variables, which may hold a recipient.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)]


def _json_renderers() -> list[Processor]:
    return [structlog.processors.format_exc_info, _main_keys_first, _encoded]


def _main_keys_first(
    _: object, __: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _encoded(_: object, __: str, event: MutableMapping[str, object]) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except UnicodeEncodeError:  # a lone surrogate is not valid UTF-8: write the line in ASCII
        return json.dumps(event, default=str)
