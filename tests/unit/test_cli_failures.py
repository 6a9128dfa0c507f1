"""Which failures are one line, with which exit code, and which deserve their traceback."""

from __future__ import annotations

import errno

import pytest

from notifier.cli.failures import CommandFailed, explain
from notifier.domain.errors import ConfigError, StoreUnavailable


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (CommandFailed("no API"), 1, ["no API"]),
        (StoreUnavailable("away"), 1, ["away"]),
        (ConfigError("a: wrong\nb: wrong"), 2, ["a: wrong", "b: wrong"]),
        (OSError(errno.EADDRINUSE, "address in use"), 2, ["address in use"]),
        (OSError(errno.ENOSPC, "disk full"), 1, ["disk full"]),
        (PermissionError(errno.EACCES, "denied", "/data"), 1, ["/data: denied"]),
    ],
)
def test_what_is_expected_is_said_in_a_line(error: Exception, code: int, lines: list[str]) -> None:
    assert explain(error) == (code, lines)


def test_a_group_is_taken_apart_and_says_nothing_twice() -> None:
    inner = ExceptionGroup("relay", [StoreUnavailable("away"), StoreUnavailable("away")])
    group = ExceptionGroup("process", [inner, ConfigError("port: in use")])
    assert explain(group) == (2, ["away", "port: in use"])


@pytest.mark.parametrize("surprise", [KeyError("x"), OSError(errno.EIO, "disk"), ValueError()])
def test_a_surprise_keeps_its_traceback(surprise: Exception) -> None:
    assert explain(surprise) is None
    assert explain(ExceptionGroup("process", [surprise, ConfigError("also")])) is None
