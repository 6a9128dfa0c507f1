"""The `load` command: its options, its progress bars, its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from notifier.cli.configured import api_url, settings_with
from notifier.cli.failures import FAILED
from notifier.cli.load.plan import Plan, read_fates, read_mix
from notifier.cli.options import AsJson, Seconds, Url
from notifier.cli.running import run_briefly
from notifier.domain.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from notifier.cli.load.report import Report

# The API's clock and ours may differ a little.
_CLOCKS = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much, how fast, over what, for how long."""

    url: str
    plan: Plan
    number: int
    rate: float
    is_poisson: bool
    batch: int
    concurrency: int
    seed: int
    within_s: float | None


def load(
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="How many.")] = 1000,
    rate: Annotated[float, Parameter(help="Notifications a second; 0: as fast as can be.")] = 0.0,
    poisson: Annotated[
        bool, Parameter(negative="", help="Come by chance, not in even steps.")
    ] = False,
    mix: Annotated[
        str | None,
        Parameter(
            help="Shares of queues, as email.high=1,sms.low=3.",
            show_default=lambda _: "every queue alike",
        ),
    ] = None,
    fates: Annotated[
        str, Parameter(help="Shares of the sandbox's fates, as ok=90,flaky-2=5,refuse=2.")
    ] = "ok",
    batch: Annotated[int, Parameter(help="Notifications in one call.")] = 1,
    concurrency: Annotated[int, Parameter(help="Calls at once.")] = 64,
    wait: Annotated[bool, Parameter(help="Follow all until they are final.")] = True,
    timeout: Annotated[Seconds, Parameter(help="Seconds to follow them at most.")] = 600.0,
    seed: Annotated[int, Parameter(help="The same seed submits the same.")] = 1,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Submit many notifications and measure what becomes of them.

    Ends with 1 if any was not accepted, or was not final in time.
    """
    _require_from_one(number=number, batch=batch, concurrency=concurrency)
    if not 0 <= rate < float("inf"):
        raise ConfigError(f"--rate: got {rate}, expected a number from 0 up")
    channels = settings_with().channels
    addresses = {name: channel.address for name, channel in channels.items()}
    wanted = Load(
        url=api_url(url),
        plan=Plan(read_mix(mix, addresses), read_fates(fates), addresses),
        number=number,
        rate=rate,
        is_poisson=poisson,
        batch=batch,
        concurrency=concurrency,
        seed=seed,
        within_s=timeout if wait else None,
    )
    report = run_briefly(run_load(wanted))
    _print(report, as_json=json)
    return 0 if report.is_complete else FAILED


def _require_from_one(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise ConfigError(f"--{name}: got {value}, expected an integer from 1 up")


def _print(report: Report, *, as_json: bool) -> None:
    from notifier.cli.load.report import print_report  # noqa: PLC0415 start-up time
    from notifier.cli.show import print_json  # noqa: PLC0415

    print_json(report) if as_json else print_report(report)


async def run_load(load: Load) -> Report:
    """Submit, follow, report. Raises CommandFailed when there is no API."""
    from random import Random  # noqa: PLC0415 start-up time

    from notifier.cli.client import Client, open_session  # noqa: PLC0415
    from notifier.cli.load.follow import Follower  # noqa: PLC0415
    from notifier.cli.load.pace import instants  # noqa: PLC0415
    from notifier.cli.load.report import make_report  # noqa: PLC0415
    from notifier.cli.load.submit import Submitter  # noqa: PLC0415

    created_from = (datetime.now(UTC) - _CLOCKS).isoformat().replace("+00:00", "Z")
    random = Random(load.seed)  # noqa: S311 the same load again, no secret
    with _progress() as progress:
        async with open_session(load.concurrency) as session:
            submitted = await Submitter(
                session, load.url, _bar(progress, "submit", load.number)
            ).run(
                load.plan.bodies(load.number, random),
                instants(load.rate, load.batch, Random(load.seed) if load.is_poisson else None),  # noqa: S311
                batch=load.batch,
                concurrency=load.concurrency,
            )
            if load.within_s is None:
                return make_report(submitted, None)
            accepted = set(submitted.queue_of)
            follower = Follower(
                Client(load.url, session),
                accepted,
                created_from,
                _level(progress, "final", len(accepted)),
            )
            return make_report(submitted, await follower.run(load.within_s))


def _progress() -> Progress:
    """Bars on stderr, only for a person."""
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


def _bar(progress: Progress, name: str, total: int) -> Callable[[int], None]:
    """A bar that is told what was added."""
    task = progress.add_task(name, total=total)
    return lambda added: progress.advance(task, added)


def _level(progress: Progress, name: str, total: int) -> Callable[[int], None]:
    """A bar that is told where it stands."""
    task = progress.add_task(name, total=total)
    return lambda level: progress.update(task, completed=level)
