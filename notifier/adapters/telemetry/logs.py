"""Logs: an event name with keys and values, one line each, on stderr.

Ours and the libraries' take the same way out, so that a reader finds one format. Nothing here may
ever hold a recipient or content: the libraries are kept to warnings, where they name hosts only.
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

# What these say below an error is either chatter or said by us already: a driver's connection
# attempts while its server is away, a client's requests with their addresses.
_QUIET: Final = {
    "aio_pika": logging.CRITICAL,
    "aiormq": logging.CRITICAL,
    "aiohttp": logging.WARNING,
    "aiosmtpd": logging.WARNING,
    "mail": logging.WARNING,  # aiosmtpd's own logger, which prints envelopes at INFO
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
    """Send all logs of the process to `stream` (stderr). `auto` is `console` on a terminal."""
    out = stream or sys.stderr
    is_console = format == "console" or (format == "auto" and out.isatty())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _spelled,
    ]
    after = _console(out) if is_console else _json()
    structlog.configure(
        processors=[*before, *after],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Lines(out, *names),
        cache_logger_on_first_use=True,
    )
    _route_stdlib(out, before, after, level.upper())


class _Lines:
    """Where ours go, past the standard library: each attempt is a line, and its way is the dearer.

    Whoever logs must not fail for it: what a stream that is closed or full does not take is lost.
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
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(capture=True)


def _spelled(_: object, __: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Ids and queues as text; done here, so that a line that is not written costs nothing."""
    for name, value in event.items():
        if isinstance(value, UUID | QueueKey):
            event[name] = str(value)
    return event


def _console(out: TextIO) -> list[Processor]:
    plain = structlog.dev.plain_traceback  # the other prints locals, where a recipient may stand
    return [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, _renamed, _encoded]


def _renamed(_: object, __: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """The keys people look for first stand first."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _encoded(_: object, __: str, event: MutableMapping[str, object]) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except UnicodeEncodeError:  # what UTF-8 cannot hold, a lone surrogate, is written as ASCII
        return json.dumps(event, default=str)
