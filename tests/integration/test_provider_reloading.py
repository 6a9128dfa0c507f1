"""Credentials that were refused are read again from their file, without a restart."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from notifier.adapters.providers import reloading
from notifier.adapters.providers.registry import PROVIDER_TYPES, open_provider
from notifier.adapters.providers.settings import ProviderSettings
from notifier.domain.errors import ConfigError
from notifier.domain.notification import NotificationId, QueueKey
from notifier.domain.outcome import (
    Accepted,
    Misconfigured,
    Outcome,
    Refused,
    Throttled,
    Unavailable,
)
from notifier.ports.provider import Envelope, Provider
from notifier.settings import convert_table, load_settings
from tests.integration.mail_server import MailServer
from tests.integration.raw_servers import RawServer, http_response, open_raw

pytestmark = pytest.mark.filterwarnings(
    "ignore:Requiring AUTH while not requiring TLS:UserWarning",
    "ignore:BasicAuth is deprecated:DeprecationWarning",
    "ignore:The 'auth' parameter is deprecated:DeprecationWarning",
)

OLD, NEW = "correct-horse", "hunter2-staple"


def envelope(channel: str = "sms") -> Envelope:
    return Envelope(
        id=NotificationId(uuid4()),
        claim=1,
        queue=QueueKey.parse(f"{channel}.high"),
        recipient="ann@example.com" if channel == "email" else "+4915112345678",
        content={"subject": "Hi", "body": "there"},
    )


class Configured:
    """A provider as a process configures it, with its password in a file."""

    def __init__(self, name: str, folder: Path, **environ: str) -> None:
        self.name = name
        self.folder = folder
        self.reads = 0
        of = f"NOTIFIER_PROVIDERS__{name.upper()}__"
        given = {"USERNAME": "me", "PASSWORD_FILE": "password", **environ}
        self.environ = {of + key: value for key, value in given.items()}
        self.write(OLD)

    def write(self, password: str) -> None:
        (self.folder / "password").write_text(password + "\n")

    def read(self) -> ProviderSettings:
        self.reads += 1
        raw = load_settings(self.environ, cwd=self.folder).providers[self.name]
        return convert_table(raw, PROVIDER_TYPES, key=f"providers.{self.name}")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Provider]:
        async with open_provider(self.name, self.read(), self.read) as provider:
            self.reads = 0
            yield provider


class Gateway:
    """An HTTP server with a password; the next `held` responses wait for `release`."""

    def __init__(self) -> None:
        self.password = NEW
        self.requests = 0
        self.connections = 0
        self.held = 0
        self.holding = asyncio.Event()
        self.release = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            size = next(line for line in head.lower().splitlines() if "content-length" in line)
            await reader.readexactly(int(size.partition(":")[2]))
            self.requests += 1
            is_accepted = basic(self.password) in head
            if self.held:
                self.held -= 1
                self.holding.set()
                await self.release.wait()
            writer.write(http_response("201 Created" if is_accepted else "401 Unauthorized"))
            await writer.drain()


def basic(password: str) -> str:
    return base64.b64encode(f"me:{password}".encode()).decode()


@pytest.fixture
async def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def sms(gateway: Gateway, tmp_path: Path) -> AsyncIterator[Configured]:
    """An SMS provider on the gateway; its file holds the old password."""
    async with open_raw(gateway.serve, RawServer()) as raw:
        yield Configured("twilio", tmp_path, URL=f"http://127.0.0.1:{raw.port}/messages")


async def test_new_credentials_in_the_file_are_used_within_the_refused_send(
    sms: Configured, gateway: Gateway
) -> None:
    async with sms.open() as provider:
        assert_refused(await provider.send(envelope()))
        sms.write(NEW)
        await wait_reload_interval()
        assert isinstance(await provider.send(envelope()), Accepted)
        before = gateway.requests
        assert isinstance(await provider.send(envelope()), Accepted)
    assert gateway.requests == before + 1
    assert sms.reads == 2


async def test_mail_is_sent_with_a_changed_password_without_a_restart(
    tmp_path: Path,
) -> None:
    async with MailServer(password=NEW).open() as port:
        mail = Configured("smtp", tmp_path, HOST="127.0.0.1", PORT=str(port))
        async with mail.open() as provider:
            assert_refused(await provider.send(envelope("email")))
            mail.write(NEW)
            await wait_reload_interval()
            assert isinstance(await provider.send(envelope("email")), Accepted)


async def test_many_sends_refused_at_once_reload_once_and_are_all_sent(
    sms: Configured, gateway: Gateway
) -> None:
    async with sms.open() as provider:
        sms.write(NEW)
        async with asyncio.TaskGroup() as group:
            sends = [
                group.create_task(provider.send(envelope()), name=f"send {n}") for n in range(30)
            ]
    assert {send.result().name for send in sends} == {"accepted"}
    assert sms.reads == 1
    assert gateway.requests == 60


async def test_an_unchanged_file_is_read_once_a_second_and_no_send_is_repeated(
    sms: Configured, gateway: Gateway
) -> None:
    began_at = time.monotonic()
    async with sms.open() as provider:
        for _ in range(20):
            assert_refused(await provider.send(envelope()))
        assert sms.reads <= 1 + (time.monotonic() - began_at) / reloading.RELOAD_INTERVAL_S
    assert gateway.requests == 20
    assert gateway.connections == 1


async def test_a_missing_file_is_logged_without_a_secret_and_read_again_later(
    sms: Configured,
) -> None:
    async with sms.open() as provider:
        (sms.folder / "password").unlink()
        with capture_logs() as logs:
            assert_refused(await provider.send(envelope()))
        [event] = logs
        assert (event["event"], event["log_level"]) == ("provider_reload_failed", "error")
        assert event["provider"] == "twilio"
        assert "No such file" in event["reason"]
        assert OLD not in str(logs)
        sms.write(NEW)
        await wait_reload_interval()
        assert isinstance(await provider.send(envelope()), Accepted)


async def test_unusable_settings_do_not_replace_the_old_ones(
    sms: Configured, gateway: Gateway
) -> None:
    url = sms.environ["NOTIFIER_PROVIDERS__TWILIO__URL"]
    async with sms.open() as provider:
        sms.environ["NOTIFIER_PROVIDERS__TWILIO__URL"] = "{{ unclosed"
        with capture_logs() as logs:
            assert_refused(await provider.send(envelope()))
        assert [event["event"] for event in logs] == ["provider_reload_failed"]
        gateway.password = OLD
        assert isinstance(await provider.send(envelope()), Accepted)
        sms.environ["NOTIFIER_PROVIDERS__TWILIO__URL"] = url


async def test_a_send_on_old_settings_finishes_before_they_are_closed(
    sms: Configured, gateway: Gateway
) -> None:
    gateway.password, gateway.held = OLD, 1
    async with sms.open() as provider, asyncio.TaskGroup() as group:
        running = group.create_task(provider.send(envelope()), name="running")
        await gateway.holding.wait()
        gateway.password = NEW
        sms.write(NEW)
        assert isinstance(await provider.send(envelope()), Accepted)
        assert isinstance(provider, reloading.ReloadingProvider)
        assert len(provider._replaced) == 1
        gateway.release.set()
        assert isinstance(await running, Accepted)
        assert not provider._replaced


async def test_a_send_that_took_long_is_not_repeated_but_the_next_one_is_sent(
    sms: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "MAX_REPEAT_AGE_S", -1.0)
    async with sms.open() as provider:
        sms.write(NEW)
        assert_refused(await provider.send(envelope()))
        assert isinstance(await provider.send(envelope()), Accepted)


class FixedProvider:
    """A provider that always returns the same outcome."""

    name = "twilio"

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    async def send(self, _: Envelope) -> Outcome:
        return self._outcome


@pytest.mark.parametrize(
    "outcome",
    [
        Accepted(),
        Refused(code="400"),
        Throttled(code="429"),
        Unavailable(code="500"),
        Unavailable(code="no_connection", is_local=True),
    ],
)
async def test_an_outcome_that_is_not_about_credentials_reads_no_file(
    sms: Configured, outcome: Outcome
) -> None:
    @asynccontextmanager
    async def open_edition(_: str, __: ProviderSettings) -> AsyncIterator[Provider]:
        yield FixedProvider(outcome)

    def opened() -> AbstractAsyncContextManager[Provider]:
        return reloading.open_reloading(
            "twilio", sms.read(), open_edition=open_edition, reload=sms.read
        )

    async with opened() as provider:
        sms.reads = 0
        assert await provider.send(envelope()) == outcome
    assert sms.reads == 0


async def test_unusable_settings_raise_on_opening(tmp_path: Path) -> None:
    unusable = Configured("smtp", tmp_path, SENDER="nobody")
    with pytest.raises(ConfigError, match="expected a sender"):
        async with unusable.open():
            pass


def assert_refused(outcome: Outcome) -> None:
    assert isinstance(outcome, Misconfigured)
    assert outcome.is_credentials


async def wait_reload_interval() -> None:
    await asyncio.sleep(reloading.RELOAD_INTERVAL_S)


async def test_a_hanging_read_blocks_neither_later_reads_nor_the_end_of_the_process() -> None:
    script = """
import asyncio, time
from notifier.adapters.providers.threaded_read import ThreadedRead
async def main():
    read = ThreadedRead("settings", lambda: time.sleep(3600))
    for _ in range(2):
        try:
            async with asyncio.timeout(0.1):
                await read()
        except TimeoutError:
            print("timed out")
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.split(b"\n")) == (0, [b"timed out", b"timed out", b""])
