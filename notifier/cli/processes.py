"""The commands that run until a signal: `dev`, `api`, `worker`, `sandbox`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from notifier.cli.children import Processes, Sibling, commands_of
from notifier.cli.configured import require_urls, settings_with
from notifier.cli.running import run_until_signal, started
from notifier.domain.errors import ConfigError
from notifier.settings import WorkerSettings

if TYPE_CHECKING:
    from notifier.app.dev import DevInfo
    from notifier.settings import ApiSettings, LogSettings, Settings

Host = Annotated[str | None, Parameter(help="Address to listen on.")]
Port = Annotated[int | None, Parameter(help="Port to listen on.")]
MetricsPort = Annotated[
    int | None, Parameter(help="Port of health and metrics; 8001 or the next free one.")
]
ApiMetricsPort = Annotated[
    int | None,
    Parameter(
        help="Port of health and metrics apart from the API's; of several, 9101 or the next.",
        validator=validators.Number(gte=1, lte=65_535),
    ),
]
Consumers = Annotated[int | None, Parameter(help="Consumers that move between the queues.")]


def api(
    *,
    host: Host = None,
    port: Port = None,
    metrics_port: ApiMetricsPort = None,
    processes: Processes = 1,
    sibling: Sibling = None,
) -> int:
    """Run an API process: accepts notifications."""
    settings = settings_with({"api.host": host, "api.port": port})
    require_urls(settings, "database", "broker")
    _configure_logging(settings.log, sibling)
    from notifier.app.roles import API_METRICS_PORT, run_api  # noqa: PLC0415 start-up time

    if processes > 1:
        commands = commands_of(
            "api",
            processes,
            metrics_port=metrics_port or API_METRICS_PORT,
            found_from=API_METRICS_PORT,
            given={"--host": host, "--port": port},
        )
        return _run_apis(settings.api, commands)

    def announce(bound: int, metrics: int | None) -> None:
        started()
        print(f"API on http://{settings.api.host}:{bound} (docs at /docs)", flush=True)
        if metrics:
            _announce_metrics(settings, metrics)

    run_until_signal(
        lambda stop: run_api(
            settings,
            stop=stop,
            announce=announce,
            metrics_port=metrics_port,
            share_port=sibling is not None,
        ),
        has_parent=sibling is not None,
    )
    return 0


def worker(
    *,
    metrics_port: MetricsPort = None,
    consumers: Consumers = None,
    processes: Processes = 1,
    sibling: Sibling = None,
) -> int:
    """Run a worker process: delivers what was accepted."""
    overrides = {"worker.metrics_port": metrics_port, "worker.consumers": consumers}
    settings = settings_with(overrides)
    require_urls(settings, "database", "broker")
    _configure_logging(settings.log, sibling)
    if processes > 1:
        return _run_workers(
            commands_of(
                "worker",
                processes,
                metrics_port=settings.worker.metrics_port,
                found_from=WorkerSettings().metrics_port,
                given={"--consumers": consumers},
            )
        )

    from notifier.app.roles import run_worker  # noqa: PLC0415 start-up time

    def announce(bound: int) -> None:
        started()
        _announce_metrics(settings, bound)

    run_until_signal(
        lambda stop: run_worker(
            settings, stop=stop, announce=announce, reload=lambda: settings_with(overrides)
        ),
        has_parent=sibling is not None,
    )
    return 0


def dev(
    *,
    host: Host = None,
    port: Port = None,
    broker: Annotated[
        str, Parameter(help="inprocess, rabbitmq (a private node), or the URL of yours.")
    ] = "inprocess",
    database: Annotated[
        str | None, Parameter(help="URL of your Postgres, in place of an embedded one.")
    ] = None,
    data: Annotated[Path, Parameter(help="Folder of all that is kept.")] = Path(".notifier"),
    reset: Annotated[bool, Parameter(negative="", help="Clear the folder first.")] = False,
    providers: Annotated[
        Literal["sandbox", "settings"],
        Parameter(help="Send to the sandbox, or to the providers of the settings."),
    ] = "sandbox",
    consumers: Consumers = None,
) -> None:
    """Run everything in one process, with a Postgres, a broker and a fake provider of its own."""
    settings = settings_with(
        {
            "api.host": host,
            "api.port": port,
            "worker.consumers": consumers,
            "database.url": database,
            "broker.url": broker if "://" in broker else None,
        }
    )
    _check_broker(broker)
    _configure_logging(settings.log)
    from notifier.app.dev import DevOptions, run_dev  # noqa: PLC0415 start-up time

    options = DevOptions(
        data=data.resolve(), reset=reset, broker=broker, database=database, providers=providers
    )
    run_until_signal(lambda stop: run_dev(settings, options, stop=stop, announce=_announce_dev))


def sandbox(
    *,
    host: Host = None,
    http_port: Annotated[int | None, Parameter(help="Port of SMS, push and control.")] = None,
    smtp_port: Annotated[int | None, Parameter(help="Port of mail.")] = None,
) -> None:
    """Run a fake provider: SMTP for email, HTTP for SMS and push; nothing is delivered."""
    settings = settings_with(
        {"sandbox.host": host, "sandbox.http_port": http_port, "sandbox.smtp_port": smtp_port}
    )
    _configure_logging(settings.log)
    from notifier.sandbox import open_sandbox  # noqa: PLC0415 start-up time

    at = settings.sandbox

    async def serve(stop: asyncio.Event) -> None:
        async with open_sandbox(
            host=at.host, http_port=at.http_port, smtp_port=at.smtp_port
        ) as opened:
            print(f"SMS and push  {opened.http_url}")
            print(f"email         smtp://{opened.host}:{opened.smtp_port}")
            print(f"its log       {opened.http_url}/calls", flush=True)
            await stop.wait()

    run_until_signal(serve)


def _check_broker(broker: str) -> None:
    if "://" not in broker and broker not in {"inprocess", "rabbitmq"}:
        shown = broker if broker.isalnum() else "***"  # a URL that lost its // keeps its password
        raise ConfigError(f"--broker: got {shown!r}, expected inprocess, rabbitmq or a URL")


def _run_apis(at: ApiSettings, commands: list[list[str]]) -> int:
    from notifier.api.http.server import bind  # noqa: PLC0415 start-up time
    from notifier.cli.supervisor import run_children  # noqa: PLC0415 start-up time

    bind(at.host, at.port).close()  # the children share it, with whoever else would
    return run_children(commands)


def _run_workers(commands: list[list[str]]) -> int:
    from notifier.cli.supervisor import run_children  # noqa: PLC0415 start-up time

    return run_children(commands)


def _configure_logging(log: LogSettings, sibling: int | None = None) -> None:
    """Send the logs out; of several processes each line says which one it is from."""
    from structlog.contextvars import bind_contextvars  # noqa: PLC0415 start-up time

    from notifier.adapters.telemetry.logs import configure_logging  # noqa: PLC0415 start-up time

    configure_logging(log.format, log.level)
    if sibling is not None:
        bind_contextvars(process=sibling)


def _announce_metrics(settings: Settings, port: int) -> None:
    print(f"health and metrics on http://{settings.worker.metrics_host}:{port}", flush=True)


def _announce_dev(info: DevInfo) -> None:
    started()
    submit = (
        f"curl -s {info.api_url}/v1/notifications -H 'Content-Type: application/json' \\\n"
        '    -d \'{"channel": "email", "priority": "high", "recipient": "ada@example.com", '
        '"content": {"subject": "Hello", "body": "It works."}}\''
    )
    print(
        f"""
Notifier is ready.
  API       {info.api_url} (docs at /docs)
  sandbox   {info.sandbox_url}/calls, smtp port {info.smtp_port}: nothing is really delivered
  database  {info.database}
  broker    {info.broker}
  data      {info.data}
Try:
  {submit}
  curl -s {info.sandbox_url}/calls
Ctrl-C stops it; what is unfinished is finished at the next start.
""",
        flush=True,
    )
