"""The `load` command: its options and progress bars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from notifier.cli.environment import api_url, read_settings
from notifier.cli.failures import FAILED
from notifier.cli.load.plan import Plan, read_fates, read_mix
from notifier.cli.options import AsJson, Url
from notifier.cli.running import run_async
from notifier.cli.spans import Span
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from notifier.cli.load.report import Report

_MAX_CLOCK_DIFFERENCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The parameters of a load run. `timeout_s` None: do not wait until all are final."""

    url: str
    plan: Plan
    number: int
    rate: float
    is_poisson: bool
    batch: int
    concurrency: int
    seed: int
    timeout_s: float | None


def load(
    *,
    number: Annotated[
        int, Parameter(name=["--number", "-n"], help="Number of notifications.")
    ] = 1000,
    rate: Annotated[float, Parameter(help="Notifications a second; 0: as fast as possible.")] = 0.0,
    poisson: Annotated[
        bool, Parameter(negative="", help="Random gaps instead of even steps.")
    ] = False,
    mix: Annotated[
        str | None,
        Parameter(
            help="Shares of queues, as email.high=1,sms.low=3.",
            show_default=lambda _: "all queues with equal shares",
        ),
    ] = None,
    fates: Annotated[
        str, Parameter(help="Shares of the sandbox's fates, as ok=90,flaky-2=5,refuse=2.")
    ] = "ok",
    batch: Annotated[int, Parameter(help="Notifications per call.")] = 1,
    concurrency: Annotated[int, Parameter(help="Concurrent calls.")] = 64,
    wait: Annotated[bool, Parameter(help="Wait until all are final.")] = True,
    timeout: Annotated[Span, Parameter(help="Time-out of --wait.")] = 600.0,
    seed: Annotated[
        int, Parameter(help="Seed of the mix: equal seeds submit equal notifications.")
    ] = 1,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Submit many notifications and measure their delivery.

    Exit code 1 if any was not accepted, or was not final in time.
    """
    _require_positive(number=number, batch=batch, concurrency=concurrency)
    if not 0 <= rate < float("inf"):
        raise ConfigError(f"--rate: got {rate}, expected a number from 0 up")
    channels = read_settings().channels
    addresses = {name: channel.address for name, channel in channels.items()}
    options = Load(
        url=api_url(url),
        plan=Plan(read_mix(mix, addresses), read_fates(fates), addresses),
        number=number,
        rate=rate,
        is_poisson=poisson,
        batch=batch,
        concurrency=concurrency,
        seed=seed,
        timeout_s=timeout if wait else None,
    )
    report = run_async(run_load(options))
    _print(report, as_json=json)
    return 0 if report.is_complete else FAILED


def _require_positive(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise ConfigError(f"--{name}: got {value}, expected an integer from 1 up")


def _print(report: Report, *, as_json: bool) -> None:
    from notifier.cli.load.report import print_report  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    print_json(report) if as_json else print_report(report)


async def run_load(load: Load) -> Report:
    """Submit, wait until all are final, and report. Raises CommandFailed if there is no API."""
    from random import Random  # noqa: PLC0415 start-up time

    from notifier.cli.client import Client, open_session  # noqa: PLC0415
    from notifier.cli.load.follow import Follower  # noqa: PLC0415
    from notifier.cli.load.pace import due_times  # noqa: PLC0415
    from notifier.cli.load.report import make_report  # noqa: PLC0415
    from notifier.cli.load.submit import Submitter  # noqa: PLC0415

    created_from = (datetime.now(UTC) - _MAX_CLOCK_DIFFERENCE).isoformat().replace("+00:00", "Z")
    random = Random(load.seed)  # noqa: S311 a repeatable load, no secret
    with _progress() as progress:
        async with open_session(load.concurrency) as session:
            bar = _Bar(progress, progress.add_task("submit", total=load.number))
            gaps = Random(load.seed) if load.is_poisson else None  # noqa: S311 as above
            submitted = await Submitter(session, load.url, bar).run(
                load.plan.bodies(load.number, random),
                due_times(load.rate, load.batch, gaps),
                batch=load.batch,
                concurrency=load.concurrency,
            )
            if load.timeout_s is None:
                return make_report(submitted, None)
            accepted = set(submitted.queue_of)
            bar = _Bar(progress, progress.add_task("final", total=len(accepted)))
            follower = Follower(Client(load.url, session), accepted, created_from, bar)
            return make_report(submitted, await follower.run(load.timeout_s))


def _progress() -> Progress:
    """Return the progress bars; they go to stderr, and only if it is a terminal."""
    from rich.console import Console  # noqa: PLC0415 start-up time
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar. Implements notifier.cli.load.progress.Progress."""

    bars: Progress
    task: TaskID

    def advance(self, count: int) -> None:
        self.bars.advance(self.task, count)
