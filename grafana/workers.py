"""The dashboard Workers: all processes, the API's too; their servers, their work, their cost."""

from __future__ import annotations

from typing import Final

from grafana.colours import QUANTILES, UP_STATES
from grafana.layout import Section, dashboard
from grafana.panels import Json, Place, Query, state_timeline, timeseries
from grafana.promql import PROCESS, WINDOW, of_workers, ours, per_second, quantile, seen, total

NAME: Final = "{{job}} {{instance}}"


def workers() -> Json:
    """Return the dashboard of all processes, with a series for each."""
    return dashboard(
        "workers",
        "The processes of Notifier, API and workers: whether they are alive and reach their "
        "servers, how busy they are, and how much CPU and memory they take.",
        [_health(), _work(), _cost()],
    )


def _health() -> Section:
    first = [Place(_alive(), 6), Place(_died(), 6), Place(_dependencies(), 12)]
    second = [Place(_round_trip("postgres", "Postgres"), 12)]
    second += [Place(_round_trip("rabbitmq", "RabbitMQ"), 12)]
    return Section("Are they alive, and do they reach their servers?", [first, second])


def _work() -> Section:
    line = [Place(_busy(), 8), Place(_calls(), 8), Place(_accept(), 8)]
    return Section("How busy are they?", [line])


def _cost() -> Section:
    return Section(
        "What do they cost?", [[Place(_lag(), 8), Place(_cpu(), 8), Place(_memory(), 8)]]
    )


def _alive() -> Json:
    return timeseries(
        "Workers alive",
        "Workers with a present heartbeat. Fewer than you run: one died or cannot reach Postgres. "
        "None: every queue waits; start one.",
        Query(seen("notifier_workers"), "alive"),
        unit="short",
        colours={"alive": "green"},
    )


def _died() -> Json:
    return timeseries(
        "Processes that died",
        "Processes that ended without deregistering, as in the log event worker_died. Other "
        "processes take over what they were sending. Find out why they died: memory, SIGKILL, a "
        "machine that failed.",
        Query(f"max (increase(notifier_processes_died_total[{WINDOW}]))", "died"),
        unit="short",
        colours={"died": "red"},
        bars=True,
    )


def _dependencies() -> Json:
    return state_timeline(
        "Postgres and RabbitMQ, as each process sees them",
        "Unavailable for all processes: look at the server. For one: look at its network. Without "
        "Postgres the API answers 503. Without RabbitMQ the API accepts and workers wait. Both "
        "resume by themselves.",
        Query(
            f"min by (dependency, {PROCESS}) (notifier_dependency_up)", f"{{{{dependency}}}} {NAME}"
        ),
        states=UP_STATES,
    )


def _round_trip(dependency: str, name: str) -> Json:
    return timeseries(
        f"{name} round trip, p99",
        f"The duration of a small request to {name}, once a second, by process. High for all: "
        f"{name} is slow. High for one: its machine, its network or its event loop is slow.",
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
        "Consumers in a call, by worker, and all consumers it has (dashed). All busy while queues "
        "wait: raise --consumers or start workers. A worker at 0: its /health/ready says why.",
        Query(of_workers(busy), NAME),
        Query(f"{total('notifier_consumers', by=PROCESS)} > 0", f"{NAME} all"),
        unit="short",
        dashed=["all$"],
    )


def _calls() -> Json:
    return timeseries(
        "Calls",
        "Calls of each worker, in proportion to its consumers. A worker that does much less than "
        "others like it has a slow machine or network.",
        Query(of_workers(per_second("notifier_attempts_total", by=PROCESS)), NAME),
        unit="reqps",
    )


def _accept() -> Json:
    return timeseries(
        "Submits, from request to commit",
        "How long the API takes to store a submit: the wait for the group commit, and the commit "
        "in Postgres. High: the disk of Postgres is slow, or there are too few API processes.",
        Query(quantile(0.99, "notifier_accept_seconds"), "p99"),
        Query(quantile(0.5, "notifier_accept_seconds"), "p50"),
        unit="s",
        colours=QUANTILES,
    )


def _lag() -> Json:
    return timeseries(
        "Event loop lag, p99",
        "How late the event loop of each process runs its timers. Above 100 ms for minutes: it "
        "has too little CPU; run more processes (--processes) with fewer consumers each.",
        Query(quantile(0.99, "notifier_loop_lag_seconds", by=PROCESS), NAME),
        unit="s",
    )


def _cpu() -> Json:
    return timeseries(
        "CPU",
        "Cores that each process uses. One process can use about one core. Near 1: start another "
        "process, or use --processes N.",
        Query(ours(f"rate(process_cpu_seconds_total[{WINDOW}])"), NAME),
        unit="short",
    )


def _memory() -> Json:
    return timeseries(
        "Memory",
        "Resident memory of each process. It does not depend on the backlog. A steady climb over "
        "hours is a leak: restart the process (SIGTERM) and report it.",
        Query(ours("process_resident_memory_bytes"), NAME),
        unit="bytes",
    )
