"""The logs: one format for Notifier and its libraries."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from notifier.adapters.telemetry.logs import configure_logging
from notifier.domain.notification import QueueKey

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error"}
DOCUMENTED = re.compile(r"\b(?:[Ll]og|[Ee]vent)s? ((?:`[a-z_]+`(?:, | and )?)+)")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """A stream to log to. The configuration of logging is restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
    yield io.StringIO()
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for name in logging.root.manager.loggerDict:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_keys_and_a_utc_time(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    structlog.get_logger("a.b").info("worker_ready", port=8001, queues={"email.high"})

    (line,) = lines(out)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["event"], line["level"], line["logger"]) == ("worker_ready", "info", "a.b")
    assert (line["port"], line["queues"]) == (8001, ["email.high"])
    assert datetime.fromisoformat(str(line["timestamp"])).tzinfo == UTC


def test_bound_ids_are_on_every_line(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    with structlog.contextvars.bound_contextvars(id="n1"):
        structlog.get_logger().info("claimed")
    assert lines(out)[0]["id"] == "n1"


def test_a_log_record_of_a_library_has_the_same_format(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    logging.getLogger("some.library").warning("lost %s", "it", extra={"host": "h"})

    (line,) = lines(out)
    assert (line["event"], line["logger"], line["host"]) == ("lost it", "some.library", "h")


def test_events_below_the_level_are_not_written(out: io.StringIO) -> None:
    configure_logging("json", "warning", stream=out)
    structlog.get_logger("x").info("quiet")
    logging.getLogger("some.library").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [line["event"] for line in lines(out)] == ["loud"]


@pytest.mark.parametrize("name", ["aiormq.connection", "mail.log", "aiohttp.access", "asyncio"])
def test_noisy_libraries_are_quiet_even_at_debug(out: io.StringIO, name: str) -> None:
    configure_logging("json", "debug", stream=out)
    logging.getLogger(name).info("jane@example.com sent this")
    assert out.getvalue() == ""


def test_an_exception_stays_on_one_line(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    try:
        int("boom")
    except ValueError:
        structlog.get_logger().exception("surprise")

    (line,) = lines(out)
    assert "ValueError: invalid literal" in str(line["exception"])


def test_auto_is_json_without_a_terminal(out: io.StringIO) -> None:
    configure_logging("auto", "info", stream=out)
    structlog.get_logger().info("hello")
    assert lines(out)[0]["event"] == "hello"


def test_auto_is_readable_text_on_a_terminal(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "isatty", lambda: True)
    configure_logging("auto", "info", stream=out)
    structlog.get_logger().info("hello", port=1)
    assert "hello" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_after_a_second_configuration_events_are_written_once(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    configure_logging("json", "info", stream=out)
    structlog.get_logger().info("once")
    assert len(lines(out)) == 1


def test_a_closed_stream_raises_no_error(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    log = structlog.get_logger()
    log.info("written")
    assert out.getvalue()
    out.close()
    log.info("dropped")
    log.error("dropped")


def test_a_full_disk_raises_no_error(out: io.StringIO) -> None:
    with Path("/dev/full").open("w", buffering=1, encoding="utf-8") as full:
        configure_logging("json", "info", stream=full)
        structlog.get_logger().error("dropped")
        with contextlib.suppress(OSError):
            full.close()
    assert out.getvalue() == ""


def test_an_exception_shows_no_values_on_a_terminal(out: io.StringIO) -> None:
    configure_logging("console", "info", stream=out)
    recipient = "jane" + "@example.com"
    try:
        int(recipient[:0])
    except ValueError:
        structlog.get_logger().exception("surprise")
    assert "ValueError" in out.getvalue()
    assert "jane@example.com" not in out.getvalue()


def test_a_lone_surrogate_is_written(out: io.StringIO) -> None:
    configure_logging("json", "info", stream=out)
    structlog.get_logger().info("read", path="a\udce9b", queue=QueueKey.parse("email.high"))
    (line,) = lines(out)
    assert (line["path"], line["queue"]) == ("a\udce9b", "email.high")


def test_an_event_is_named_by_a_noun_and_a_verb() -> None:
    assert {name for name in events() if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)} == set()


def test_the_documents_name_only_events_that_exist() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/runbook/*.md")]
    documented = {
        name
        for page in pages
        for listed in DOCUMENTED.findall(page.read_text(encoding="utf-8"))
        for name in re.findall(r"`([a-z_]+)`", listed)
    }
    assert documented
    assert documented <= {node.value for node in nodes() if isinstance(node, ast.Constant)}


def events() -> Iterator[str]:
    """Yield the name of every event in a call of a logger's method."""
    for node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            logger, name = ast.unparse(node.func.value), node.args[0]
            is_logged = node.func.attr in LEVELS and logger in {"log", "get_logger(__name__)"}
            if is_logged and isinstance(name, ast.Constant):
                yield str(name.value)


def nodes() -> Iterator[ast.AST]:
    for path in (ROOT / "notifier").rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))
