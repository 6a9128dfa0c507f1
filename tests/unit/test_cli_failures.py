"""Which errors become message lines with an exit code, and which keep their traceback."""

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
def test_an_expected_error_becomes_message_lines(
    error: Exception, code: int, lines: list[str]
) -> None:
    assert explain(error) == (code, lines)


def test_a_group_gives_one_line_for_each_distinct_cause() -> None:
    inner = ExceptionGroup("relay", [StoreUnavailable("away"), StoreUnavailable("away")])
    group = ExceptionGroup("process", [inner, ConfigError("port: in use")])
    assert explain(group) == (2, ["away", "port: in use"])


@pytest.mark.parametrize("unexpected", [KeyError("x"), OSError(errno.EIO, "disk"), ValueError()])
def test_an_unexpected_error_keeps_its_traceback(unexpected: Exception) -> None:
    assert explain(unexpected) is None
    assert explain(ExceptionGroup("process", [unexpected, ConfigError("also")])) is None
