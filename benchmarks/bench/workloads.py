"""All workloads by name: the systems that take part and how each is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from benchmarks.bench import draining, growing, limits, past, senders, submitting, waiting
from benchmarks.bench.curve import Figures
from benchmarks.bench.place import Servers
from benchmarks.bench.recording_peers import BULLMQ_REMOVING, RECORDING_PEERS
from benchmarks.bench.systems import NOTIFIER, ON_CLASSIC_QUEUES, PEERS, Contender

MOST: Mapping[str, int] = {"procrastinate": 8_000, "oban-py": 40_000}
"""Fewer jobs for the peers that would take minutes to drain `peer_sends`."""
ALL: Sequence[Contender] = (NOTIFIER, *PEERS)
ON_AN_EMPTY_DATABASE = "Notifier, empty database"
QUICK = ("Notifier", "Taskiq", "Dramatiq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Jobs to drain. A peer reaches its full rate with the first sends."""

    sends: int = 80_000
    peer_sends: int = 80_000
    http_sends: int = 10_000
    real_sends: int = 40_000
    """Through a real provider, whose messages are small until its rate is known."""
    messages: int = 100_000
    past_rows: int = 10_000_000

    def of(self, system: Contender) -> int:
        """Return the jobs that a system drains."""
        if system is NOTIFIER:
            return self.sends
        return min(self.peer_sends, MOST.get(system.name, self.peer_sends))


QUICK_SIZE = Size(peer_sends=10_000)


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload: `measures` has the systems and their measurement in the order of a round.

    `setting` prepares what all rounds share, and removes it after the last.
    """

    measures: Mapping[str, Callable[[Servers, Size], Figures]]
    setting: Callable[[Servers, Size], AbstractContextManager[Servers]] = lambda servers, _: (
        nullcontext(servers)
    )


def _each(
    measure: Callable[[Servers, Contender, Size], Figures], systems: Sequence[Contender] = ALL
) -> Workload:
    """Measure every system in turn."""

    def of(system: Contender) -> Callable[[Servers, Size], Figures]:
        return lambda servers, size: measure(servers, system, size)

    return Workload({system.name: of(system) for system in systems})


def _alone(measure: Callable[[Servers, Size], Figures]) -> Workload:
    return Workload({NOTIFIER.name: measure})


WORKLOADS: Mapping[str, Workload] = {
    "submit_1": _each(lambda servers, system, _: submitting.single(servers, system, 1)),
    "submit_2": _each(
        lambda servers, system, _: submitting.single(servers, system, 2), (*ALL, *RECORDING_PEERS)
    ),
    "submit_batch_1": _alone(lambda servers, _: submitting.batches(servers, 1)),
    "submit_batch_2": _alone(lambda servers, _: submitting.batches(servers, 2)),
    "drain": _each(
        lambda servers, system, size: draining.drain(servers, system, size.of(system)),
        (*ALL, ON_CLASSIC_QUEUES, *RECORDING_PEERS, BULLMQ_REMOVING),
    ),
    "drain_mixed": _alone(lambda servers, size: draining.drain_mixed(servers, size.sends)),
    "drain_http": _each(
        lambda servers, system, size: draining.drain_http(servers, system, size.http_sends)
    ),
    "processes": _alone(lambda servers, size: growing.processes(servers, size.sends)),
    "past": Workload(
        {
            NOTIFIER.name: lambda servers, size: past.drain(servers, past.PAST, size.sends),
            ON_AN_EMPTY_DATABASE: lambda servers, size: past.drain(servers, past.EMPTY, size.sends),
        },
        lambda servers, size: past.databases(servers, size.past_rows),
    ),
    "send_smtp": Workload(
        {
            NOTIFIER.name: lambda servers, size: senders.smtp(servers, size.real_sends),
            "aiosmtplib alone": lambda servers, size: senders.bare_smtp(servers, size.real_sends),
        }
    ),
    "send_http": Workload(
        {
            NOTIFIER.name: lambda servers, size: senders.http(servers, size.real_sends),
            "aiohttp alone": lambda servers, size: senders.bare_http(servers, size.real_sends),
        }
    ),
    "hang": _each(lambda servers, system, _: waiting.hang(servers, system)),
    "flood": _each(lambda servers, system, _: waiting.flood(servers, system)),
    "limits": Workload(
        {
            "RabbitMQ": lambda servers, size: limits.broker(servers, size.messages),
            "Postgres": lambda servers, _: limits.database(servers),
        }
    ),
}
QUICK_WORKLOADS = ("submit_2", "drain")
