"""Workers: the processes, API too: are they there, are they at work, what do they need."""

from __future__ import annotations

from typing import Final

from grafana.colours import QUANTILES, UP_STATES
from grafana.layout import Section, dashboard
from grafana.panels import Json, Place, Query, state_timeline, timeseries
from grafana.promql import PROCESS, WINDOW, of_workers, ours, per_second, quantile, seen, total

NAME: Final = "{{job}} {{instance}}"


def workers() -> Json:
    """The page of all processes, each a series."""
    return dashboard(
        "workers",
        "The processes of Notifier, API and workers: whether they live, reach what they need, are "
        "at work, and what they cost.",
        [_there(), _at_work(), _cost()],
    )


def _there() -> Section:
    first = [Place(_alive(), 6), Place(_lost(), 6), Place(_dependencies(), 12)]
    second = [Place(_round_trip("postgres", "Postgres"), 12)]
    second += [Place(_round_trip("rabbitmq", "RabbitMQ"), 12)]
    return Section("Are they there, and what they need?", [first, second])


def _at_work() -> Section:
    line = [Place(_busy(), 8), Place(_calls(), 8), Place(_accept(), 8)]
    return Section("Are they at work?", [line])


def _cost() -> Section:
    return Section(
        "What do they cost?", [[Place(_lag(), 8), Place(_cpu(), 8), Place(_memory(), 8)]]
    )


def _alive() -> Json:
    return timeseries(
        "Workers alive",
        "Workers whose heartbeat arrives. Fewer than you run: one died or cannot reach Postgres. "
        "None: every queue waits, start one.",
        Query(seen("notifier_workers"), "alive"),
        unit="short",
        colours={"alive": "green"},
    )


def _lost() -> Json:
    return timeseries(
        "Processes lost",
        "Processes that ended without saying so, as the log line worker_died. What they were "
        "sending is taken up; find out why they died: memory, SIGKILL, a lost machine.",
        Query(f"max (increase(notifier_processes_died_total[{WINDOW}]))", "lost"),
        unit="short",
        colours={"lost": "red"},
        bars=True,
    )


def _dependencies() -> Json:
    return state_timeline(
        "Postgres and RabbitMQ, as each process sees them",
        "away from all processes: look at the server. From one: look at its network. Postgres "
        "away: the API answers 503; RabbitMQ away: the API accepts, workers wait. Both resume by "
        "themselves.",
        Query(
            f"min by (dependency, {PROCESS}) (notifier_dependency_up)", f"{{{{dependency}}}} {NAME}"
        ),
        states=UP_STATES,
    )


def _round_trip(dependency: str, name: str) -> Json:
    return timeseries(
        f"{name} round trip, p99",
        f"A small question to {name}, once a second, by process. High for all: {name} is slow. "
        "High for one: its machine or network, or its event loop is late.",
        Query(
            quantile(
                0.99,
                "notifier_round_trip_seconds",
                by=PROCESS,
                where=f'dependency="{dependency}"',
            ),
            NAME,
        ),
        unit="s",
    )


def _busy() -> Json:
    busy = total("notifier_consumers_busy", by=PROCESS)
    return timeseries(
        "Consumers busy",
        "Consumers with a call under way, by worker, against all it has (dashed). All at their "
        "line while queues wait: raise --consumers or start workers. One at 0: its ready says why.",
        Query(of_workers(busy), NAME),
        Query(f"{total('notifier_consumers', by=PROCESS)} > 0", f"{NAME} has"),
        unit="short",
        dashed=["has$"],
    )


def _calls() -> Json:
    return timeseries(
        "Calls",
        "Calls of each worker. They share the work by their consumers; one that does much less "
        "than its like has a slow machine or network.",
        Query(of_workers(per_second("notifier_attempts_total", by=PROCESS)), NAME),
        unit="reqps",
    )


def _accept() -> Json:
    return timeseries(
        "Submits, from asked to committed",
        "How long the API takes to store a submit. It is Postgres's commit and the wait for the "
        "group: high means a slow disk of Postgres, or too few API processes.",
        Query(quantile(0.99, "notifier_accept_seconds"), "p99"),
        Query(quantile(0.5, "notifier_accept_seconds"), "p50"),
        unit="s",
        colours=QUANTILES,
    )


def _lag() -> Json:
    return timeseries(
        "Event loop lag, p99",
        "How late each process's event loop is. Above 100 ms for minutes: it has too little CPU; "
        "run more processes (--processes) with fewer consumers each.",
        Query(quantile(0.99, "notifier_loop_lag_seconds", by=PROCESS), NAME),
        unit="s",
    )


def _cpu() -> Json:
    return timeseries(
        "CPU",
        "Cores that each process uses; one process cannot use more than about one. Near 1: start "
        "another, or --processes N.",
        Query(ours(f"rate(process_cpu_seconds_total[{WINDOW}])"), NAME),
        unit="short",
    )


def _memory() -> Json:
    return timeseries(
        "Memory",
        "Resident memory of each process. It is flat whatever waits; a steady climb over hours is "
        "a leak: restart it (SIGTERM) and report it.",
        Query(ours("process_resident_memory_bytes"), NAME),
        unit="bytes",
    )
