"""The commands that run until a signal: `dev`, `api`, `worker` and `sandbox`."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Parameter, validators

from notifier.cli.child_commands import Processes, ProcessNumber, child_commands
from notifier.cli.environment import read_settings, require_urls
from notifier.cli.running import freeze_startup_objects, run_until_signal
from notifier.cli.streams import print_notice
from notifier.domain.errors import ConfigError
from notifier.settings import WorkerSettings

STOP_MARGIN_S: Final = 9.0
"""The time from the end of `worker.grace_s` to the end of the process. Deployments allow 10 s."""
NO_KEYS: Final = "no keys: whoever reaches it may do anything"

if TYPE_CHECKING:
    from notifier.app.dev import DevInfo
    from notifier.settings import ApiSettings, LogSettings, Settings

Host = Annotated[str | None, Parameter(help="Address to listen on.")]
Port = Annotated[int | None, Parameter(help="Port to listen on.")]
MetricsPort = Annotated[
    int | None, Parameter(help="Port of health and metrics; default: 8001 or the next free one.")
]
ApiMetricsPort = Annotated[
    int | None,
    Parameter(
        help="Extra port of health and metrics; with --processes 9101 or the next free one.",
        validator=validators.Number(gte=1, lte=65_535),
    ),
]
Consumers = Annotated[int | None, Parameter(help="Floating consumers, shared by the queues.")]


def api(
    *,
    host: Host = None,
    port: Port = None,
    metrics_port: ApiMetricsPort = None,
    processes: Processes = 1,
    process_number: ProcessNumber = None,
) -> int:
    """Run an API process: accepts notifications."""
    settings = read_settings({"api.host": host, "api.port": port})
    require_urls(settings, "database", "broker")
    _check_open(settings.api, host)
    _configure_logging(settings.log, process_number)
    from notifier.app.roles import API_METRICS_PORT, run_api  # noqa: PLC0415 start-up time

    if processes > 1:
        commands = child_commands(
            "api",
            processes,
            metrics_port=metrics_port or API_METRICS_PORT,
            default_metrics_port=API_METRICS_PORT,
            options={"--host": host, "--port": port},
        )
        return _run_apis(settings.api, commands)

    run_until_signal(
        lambda stop: run_api(
            settings,
            stop=stop,
            announcer=_Announcer(settings),
            metrics_port=metrics_port,
            share_port=process_number is not None,
        ),
        has_parent=process_number is not None,
        stop_limit_s=settings.worker.grace_s + STOP_MARGIN_S,
    )
    return 0


def worker(
    *,
    metrics_port: MetricsPort = None,
    consumers: Consumers = None,
    processes: Processes = 1,
    process_number: ProcessNumber = None,
) -> int:
    """Run a worker process: delivers accepted notifications."""
    overrides = {"worker.metrics_port": metrics_port, "worker.consumers": consumers}
    settings = read_settings(overrides)
    require_urls(settings, "database", "broker")
    _configure_logging(settings.log, process_number)
    if processes > 1:
        return _run_workers(
            child_commands(
                "worker",
                processes,
                metrics_port=settings.worker.metrics_port,
                default_metrics_port=WorkerSettings().metrics_port,
                options={"--consumers": consumers},
            )
        )

    from notifier.app.roles import run_worker  # noqa: PLC0415 start-up time

    run_until_signal(
        lambda stop: run_worker(
            settings,
            stop=stop,
            announcer=_Announcer(settings),
            reload=lambda: read_settings(overrides),
        ),
        has_parent=process_number is not None,
        stop_limit_s=settings.worker.grace_s + STOP_MARGIN_S,
    )
    return 0


def dev(
    *,
    host: Host = None,
    port: Port = None,
    broker: Annotated[
        str, Parameter(help="inprocess, rabbitmq (a private node), or a URL.")
    ] = "inprocess",
    database: Annotated[
        str | None, Parameter(help="URL of a Postgres; default: an embedded one.")
    ] = None,
    data: Annotated[Path, Parameter(help="Folder of all data.")] = Path(".notifier"),
    reset: Annotated[bool, Parameter(negative="", help="Clear the data folder first.")] = False,
    providers: Annotated[
        Literal["sandbox", "settings"],
        Parameter(help="Send to the sandbox, or to the providers of the settings."),
    ] = "sandbox",
    consumers: Consumers = None,
) -> None:
    """Run API, worker and sandbox in one process, with an embedded Postgres."""
    overrides = {
        "api.host": host,
        "api.port": port,
        "api.auth": "off",
        "worker.consumers": consumers,
        "database.url": database,
        "broker.url": broker if "://" in broker else None,
    }
    settings = read_settings(overrides)
    _check_broker(broker)
    _configure_logging(settings.log)
    from notifier.app.dev import DevOptions, run_dev  # noqa: PLC0415 start-up time

    options = DevOptions(
        data=data.resolve(), reset=reset, broker=broker, database=database, providers=providers
    )
    run_until_signal(
        lambda stop: run_dev(
            settings,
            options,
            stop=stop,
            announcer=_Announcer(settings),
            reload=lambda: read_settings(overrides),
        )
    )


def sandbox(
    *,
    host: Host = None,
    http_port: Annotated[int | None, Parameter(help="Port of SMS, push and the call log.")] = None,
    smtp_port: Annotated[int | None, Parameter(help="Port of SMTP.")] = None,
) -> None:
    """Run a fake provider: SMTP for email, HTTP for SMS and push. It delivers nothing."""
    settings = read_settings(
        {"sandbox.host": host, "sandbox.http_port": http_port, "sandbox.smtp_port": smtp_port}
    )
    _configure_logging(settings.log)
    from notifier.sandbox import open_sandbox  # noqa: PLC0415 start-up time

    addresses = settings.sandbox

    async def serve(stop: asyncio.Event) -> None:
        async with open_sandbox(
            host=addresses.host,
            http_port=addresses.http_port,
            smtp_port=addresses.smtp_port,
        ) as running:
            print_notice(f"SMS and push  {running.http_url}")
            print_notice(f"email         smtp://{running.host}:{running.smtp_port}")
            print_notice(f"call log      {running.http_url}/calls")
            await stop.wait()

    run_until_signal(serve)


def _check_open(api: ApiSettings, host: str | None) -> None:
    """Raise ConfigError if others could reach an API that asks for no key, and nobody said so."""
    if api.auth == "off" and host is None and not _is_loopback(api.host):
        raise ConfigError(
            f'api.auth is "off" and api.host is {api.host}: whoever reaches the port may do '
            f'anything; set api.auth = "keys", or give --host {api.host} to say that it is meant',
            key="api.auth",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_broker(broker: str) -> None:
    if "://" not in broker and broker not in {"inprocess", "rabbitmq"}:
        # Masked: a mistyped URL without // may contain a password.
        shown = broker if broker.isalnum() else "***"
        raise ConfigError(f"--broker: got {shown!r}, expected inprocess, rabbitmq or a URL")


def _run_apis(api: ApiSettings, commands: list[list[str]]) -> int:
    from notifier.api.http.server import bind  # noqa: PLC0415 start-up time
    from notifier.cli.supervisor import run_children  # noqa: PLC0415 start-up time

    # Raises ConfigError if another process listens there: the children share the port, and would
    # share it with that process, too.
    bind(api.host, api.port).close()
    return run_children(commands)


def _run_workers(commands: list[list[str]]) -> int:
    from notifier.cli.supervisor import run_children  # noqa: PLC0415 start-up time

    return run_children(commands)


def _configure_logging(log: LogSettings, process_number: int | None = None) -> None:
    """Configure logging; a child process adds its number to every line."""
    from structlog.contextvars import bind_contextvars  # noqa: PLC0415 start-up time

    from notifier.adapters.telemetry.logs import configure_logging  # noqa: PLC0415 start-up time

    configure_logging(log.format, log.level)
    if process_number is not None:
        bind_contextvars(process=process_number)


class _Announcer:
    """Prints where a process that has just started can be reached."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def api_started(self, port: int, metrics_port: int | None) -> None:
        freeze_startup_objects()
        api = self._settings.api
        access = f"; {NO_KEYS}" if api.auth == "off" else ""
        print_notice(f"API on http://{api.host}:{port} (docs at /docs){access}")
        if metrics_port:
            self._print_metrics_url(metrics_port)

    def worker_started(self, metrics_port: int) -> None:
        freeze_startup_objects()
        self._print_metrics_url(metrics_port)

    def dev_started(self, info: DevInfo) -> None:
        freeze_startup_objects()
        _print_dev(info)

    def _print_metrics_url(self, port: int) -> None:
        host = self._settings.worker.metrics_host
        print_notice(f"health and metrics on http://{host}:{port}")


def _print_dev(info: DevInfo) -> None:
    lines = [
        "",
        "Notifier is ready.",
        f"  API       {info.api_url} (docs at /docs); {NO_KEYS}",
        *(_real_lines(info) if info.real_providers else _sandbox_lines(info)),
        f"  database  {info.database}",
        f"  broker    {info.broker}",
        f"  data      {info.data}",
        "Try:",
        *(_real_commands(info) if info.real_providers else _sandbox_commands(info)),
        "Ctrl-C stops it. The next start continues with unfinished notifications.",
        "",
    ]
    print_notice("\n".join(lines))


def _sandbox_lines(info: DevInfo) -> list[str]:
    sandbox = f"{info.sandbox_url}/calls, SMTP port {info.smtp_port}: it delivers nothing"
    return [f"  sandbox   {sandbox}"]


def _real_lines(info: DevInfo) -> list[str]:
    width = max(map(len, info.real_providers))
    return [
        "  providers those of the settings: WHAT YOU SUBMIT IS REALLY SENT",
        *(
            f"            {channel:{width}}  {address}"
            for channel, address in info.real_providers.items()
        ),
    ]


def _sandbox_commands(info: DevInfo) -> list[str]:
    return [
        f"  curl -s {info.api_url}/v1/notifications -H 'Content-Type: application/json' \\",
        (
            '    -d \'{"channel": "email", "priority": "high", "recipient": "ada@example.com", '
            '"content": {"subject": "Hello", "body": "It works."}}\''
        ),
        f"  curl -s {info.sandbox_url}/calls",
    ]


def _real_commands(info: DevInfo) -> list[str]:
    return [f"  curl -s {info.api_url}/v1/providers", f"  curl -s {info.api_url}/v1/queues"]
