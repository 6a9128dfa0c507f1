"""`notifier dev`: API, worker and sandbox in one process, with its own Postgres and broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol
from uuid import UUID

import msgspec

from notifier.adapters.postgres.leases import open_leases
from notifier.adapters.postgres.migrate import migrate
from notifier.adapters.providers.registry import provider_host
from notifier.adapters.providers.sandboxed import sandbox_providers
from notifier.adapters.providers.settings import ProviderSettings
from notifier.app.accepting import open_api
from notifier.app.dev_file import DevFile, written
from notifier.app.process import IN_PROCESS, connection_settings, open_process
from notifier.app.providers import ReadSettings, provider_of, provider_settings
from notifier.app.sending import open_worker
from notifier.app.webhooks import for_dev, with_webhooks
from notifier.domain.notification import WEBHOOK_CHANNEL, WorkerId
from notifier.embedded.data_folder import refuse_foreign_data
from notifier.embedded.postgres import PostgresServer, open_postgres
from notifier.embedded.rabbitmq import RabbitmqServer, open_rabbitmq
from notifier.sandbox import Sandbox, open_sandbox
from notifier.settings import Settings

NIL_WORKER: Final = WorkerId(UUID(int=0))
SANDBOX_OF: Final[Mapping[str, str]] = {"email": "smtp", "phone": "twilio", "token": "fcm"}
"""The sandbox provider that a channel uses, by the kind of its addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """The options of `notifier dev`.

    `data` is the folder for all data; `reset` deletes it first. `broker` is `inprocess`,
    `rabbitmq` (a private node) or a URL; `database` is a URL, or None for the embedded Postgres.
    `providers` selects where messages go: to the sandbox or to the providers of the settings.
    """

    data: Path = Path(".notifier")
    reset: bool = False
    broker: str = "inprocess"
    database: str | None = None
    providers: Literal["sandbox", "settings"] = "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class DevInfo:
    """The facts printed once everything runs: addresses, data folder, database and broker.

    `real_providers` has the address of each channel's provider of the settings; it is empty if all
    is sent to the sandbox.
    """

    api_url: str
    real_providers: Mapping[str, str]
    sandbox_url: str
    smtp_port: int
    data: Path
    database: str
    broker: str


class DevAnnouncer(Protocol):
    """Tells the user that everything runs."""

    def dev_started(self, info: DevInfo) -> None:
        """Everything runs."""
        ...


async def run_dev(
    settings: Settings,
    options: DevOptions,
    *,
    stop: asyncio.Event,
    announcer: DevAnnouncer,
    reload: ReadSettings,
) -> None:
    """Run everything until `stop`, then drain. The next run continues with unfinished work.

    `reload` reads the settings again when a provider of the settings refuses our credentials.
    Raises, alone or in a group, ConfigError for a wrong setting or a port in use, and ServerFailed
    if the embedded Postgres or RabbitMQ does not start, or the data folder has foreign files.
    """
    refuse_foreign_data(options.data)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            open_sandbox(
                host=settings.sandbox.host,
                http_port=settings.sandbox.http_port,
                smtp_port=settings.sandbox.smtp_port,
            )
        )
        settings, providers = _with_providers(settings, options, sandbox)
        is_real = options.providers == "settings"
        settings, database = await _with_database(stack, settings, options)
        settings, broker = await _with_broker(stack, settings, options)
        await asyncio.to_thread(migrate, settings.database.url)
        settings = with_webhooks(for_dev(settings))
        if settings.broker.url == IN_PROCESS:
            await _forget_leases(settings)
        process = await stack.enter_async_context(open_process(settings, kind="dev", stop=stop))
        await stack.enter_async_context(
            open_worker(process, providers, stop=stop, reload=reload if is_real else None)
        )
        stack.enter_context(written(options.data, _dev_file(settings, sandbox, is_real=is_real)))
        port = await stack.enter_async_context(open_api(process, stop=stop))
        announcer.dev_started(
            DevInfo(
                api_url=f"http://{settings.api.host}:{port}",
                real_providers=_addresses(settings, providers) if is_real else {},
                sandbox_url=sandbox.http_url,
                smtp_port=sandbox.smtp_port,
                data=options.data,
                database=database,
                broker=broker,
            )
        )
        await stop.wait()


def _dev_file(settings: Settings, sandbox: Sandbox, *, is_real: bool) -> DevFile:
    return DevFile(
        pid=os.getpid(),
        database_url=settings.database.url,
        broker_url=settings.broker.url,
        sandbox_url="" if is_real else sandbox.http_url,
        smtp_port=0 if is_real else sandbox.smtp_port,
    )


def settings_of_dev(
    settings: Settings, dev: DevFile
) -> tuple[Settings, Mapping[str, ProviderSettings]]:
    """The settings with which a running `dev` process works, and those of its providers."""
    settings = _with_urls(settings, database=dev.database_url, broker=dev.broker_url)
    open_api_settings = msgspec.structs.replace(settings.api, auth="off")
    settings = msgspec.structs.replace(settings, api=open_api_settings)
    if not dev.sandbox_url:
        return settings, provider_settings(settings)
    sandboxes = sandbox_providers(dev.sandbox_url, settings.sandbox.host, dev.smtp_port)
    return _to_sandbox(settings), {**sandboxes, **_inboxes(settings)}


def _with_providers(
    settings: Settings, options: DevOptions, sandbox: Sandbox
) -> tuple[Settings, Mapping[str, ProviderSettings]]:
    """The settings with every channel's provider, and the settings of the providers."""
    if options.providers == "settings":
        return settings, provider_settings(settings)
    sandboxes = sandbox_providers(sandbox.http_url, settings.sandbox.host, sandbox.smtp_port)
    return _to_sandbox(settings), {**sandboxes, **_inboxes(settings)}


def _inboxes(settings: Settings) -> Mapping[str, ProviderSettings]:
    """The settings of the providers that write into inboxes: they reach no one outside."""
    used = {each.provider for each in settings.channels.values() if each.address not in SANDBOX_OF}
    return {name: provider_of(settings, name) for name in sorted(used)}


def _to_sandbox(settings: Settings) -> Settings:
    """The settings with the sandbox as the provider of every channel but those of inboxes."""
    channels = {
        name: msgspec.structs.replace(
            channel, provider=SANDBOX_OF.get(channel.address, channel.provider)
        )
        for name, channel in settings.channels.items()
    }
    return msgspec.structs.replace(settings, channels=channels)


def _addresses(settings: Settings, providers: Mapping[str, ProviderSettings]) -> Mapping[str, str]:
    """The provider of each channel and the host that it calls, without secrets."""
    return {
        name: f"{channel.provider} at {provider_host(providers[channel.provider])}"
        for name, channel in settings.channels.items()
        if name != WEBHOOK_CHANNEL
    }


async def _with_database(
    stack: AsyncExitStack, settings: Settings, options: DevOptions
) -> tuple[Settings, str]:
    """The settings with a database URL, and a description of the database.

    Only `--database` replaces the embedded one: a URL in the environment may belong to a real
    deployment, whose notifications must not go to the sandbox.
    """
    if options.database:
        return _with_urls(settings, database=options.database), "yours"
    folder = options.data / "postgres"
    if options.reset:
        await asyncio.to_thread(PostgresServer.remove, folder)
    server = await stack.enter_async_context(open_postgres(folder))
    return _with_urls(settings, database=server.url()), f"embedded Postgres in {server.data_folder}"


async def _with_broker(
    stack: AsyncExitStack, settings: Settings, options: DevOptions
) -> tuple[Settings, str]:
    """The settings with a broker URL (empty: in process), and a description of the broker."""
    match options.broker:
        case "inprocess":
            return _with_urls(settings, broker=IN_PROCESS), "in process"
        case "rabbitmq":
            folder = options.data / "rabbitmq"
            if options.reset:
                await asyncio.to_thread(RabbitmqServer.remove, folder)
            node = await stack.enter_async_context(open_rabbitmq(folder))
            return _with_urls(settings, broker=node.url()), "private RabbitMQ"
        case url:
            return _with_urls(settings, broker=url), "yours"


def _with_urls(
    settings: Settings, *, database: str | None = None, broker: str | None = None
) -> Settings:
    if database is not None:
        database_settings = msgspec.structs.replace(settings.database, url=database)
        settings = msgspec.structs.replace(settings, database=database_settings)
    if broker is not None:
        broker_settings = msgspec.structs.replace(settings.broker, url=broker)
        settings = msgspec.structs.replace(settings, broker=broker_settings)
    return settings


async def _forget_leases(settings: Settings) -> None:
    """Forget how far each queue is published: the broker in memory starts empty."""
    async with open_leases(connection_settings(settings), NIL_WORKER, ()) as leases:
        await leases.forget_leases()
