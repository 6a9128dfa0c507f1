"""`make bench`: CPU time per process group, HOT updates, and their part of the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench.cost import by_statement, cpu_figures, hot_figures, named
from benchmarks.bench.cost_page import costs
from benchmarks.bench.cpu import Spent, times
from benchmarks.bench.page import text
from benchmarks.bench.results import Results, Round, spreads


def a_thread(proc: Path, process: int, thread: int, spent_ns: int, children: str = "") -> None:
    folder = proc / f"{process}/task/{thread}"
    folder.mkdir(parents=True)
    (folder / "schedstat").write_text(f"{spent_ns} 0 1\n")
    (folder / "children").write_text(children)


def a_round(system: str, **figures: float) -> Round:
    return Round(workload="drain", system=system, number=1, figures=figures)


def test_the_times_are_those_of_all_threads_of_all_descendants(tmp_path: Path) -> None:
    a_thread(tmp_path, 10, 10, 100, "20 ")
    a_thread(tmp_path, 10, 11, 7, "30 ")
    a_thread(tmp_path, 20, 20, 50)
    a_thread(tmp_path, 30, 30, 3, "40 ")  # 40 has ended
    a_thread(tmp_path, 99, 99, 1000)
    assert times([10], tmp_path) == {(10, 10): 100, (10, 11): 7, (20, 20): 50, (30, 30): 3}


def test_a_process_without_a_folder_has_no_times(tmp_path: Path) -> None:
    assert times([10], tmp_path) == {}


def test_a_thread_that_ends_keeps_what_it_spent_before_its_last_reading() -> None:
    spent = Spent({(1, 1): 100, (1, 2): 40})
    spent.add({(1, 1): 150, (1, 2): 45, (2, 2): 30})
    spent.add({(1, 1): 160})
    assert spent.by_process == {1: 65, 2: 30}
    assert spent.total == 95


def test_a_receiver_is_shown_and_belongs_to_no_system() -> None:
    spent_ns = {"worker": 3_000_000, "rabbitmq": 1_000_000, "sandbox": 9_000_000}
    assert cpu_figures(spent_ns, 100) == pytest.approx(
        {"cpu_us": 40, "cpu_worker_us": 30, "cpu_rabbitmq_us": 10, "cpu_sandbox_us": 90}
    )


def test_backends_of_one_statement_are_added_up() -> None:
    spent_ns = {1: 100_000, 2: 300_000, 3: 500_000}
    figures = by_statement(spent_ns, {1: "claim", 2: "claim"}, 10)
    assert figures == pytest.approx({"cpu_postgres.claim_us": 40})


def test_a_statement_is_recognised_by_its_first_thousand_characters() -> None:
    long = "SELECT 1 -- " + "x" * 2000
    queries = {1: long[:1023], 2: "SELECT 2", 3: "SELECT 3"}
    assert named(queries, {"claim": long, "beat": "SELECT 2"}) == {1: "claim", 2: "beat"}


def test_the_hot_share_is_that_of_the_updates_since_and_of_tables_that_sends_update() -> None:
    before = {"notifications": (100, 100), "live": (0, 0)}
    after = {"notifications": (300, 150), "live": (200, 190), "workers": (9, 9)}
    assert hot_figures(before, after, 100) == {
        "hot_notifications_percent": 25,
        "hot_live_percent": 95,
    }


def test_the_page_has_a_column_for_each_process_group() -> None:
    notifier = a_round(
        "Notifier",
        per_s=8000,
        cpu_us=120,
        cpu_worker_us=60,
        cpu_postgres_us=60,
        wal_bytes=1690,
        hot_live_percent=98,
        **{"cpu_postgres.claim_us": 12, "cpu_postgres.record_us": 20, "cpu_postgres.beat_us": 0.1},
    )
    peer = a_round("Taskiq", per_s=4000, cpu_us=180, cpu_worker_us=150, cpu_redis_us=30)
    details = (
        "Notifier, per notification: 1,690 bytes of WAL; 98 % of the updates of live are HOT; "
        "us of Postgres by statement: record 20.0, claim 12.0."
    )
    lines = list(costs(spreads([notifier, peer]), "drain"))
    assert lines == [
        "",
        "| CPU us per notification | all | workers | Postgres | Redis | Notifier is better by |",
        "|---|---:|---:|---:|---:|---:|",
        "| Notifier | 120.0 | 60.0 | 60.0 |  |  |",
        "| Taskiq | 180.0 | 150.0 |  | 30.0 | 1.50 x |",
        "",
        details,
    ]


def test_results_without_costs_have_no_such_table() -> None:
    assert list(costs(spreads([a_round("Notifier", per_s=8000)]), "drain")) == []


def test_costs_are_not_repeated_among_the_rates() -> None:
    machine = {"cores": 2, "processor": "one", "memory_gib": 4, "system": "L", "python": "3"}
    run = Results(
        date="2030-01-02 00:00",
        machine={**machine, "commit": "0123456789ab"},
        versions={},
        rounds=[a_round("Notifier", per_s=8000, cpu_us=120, wal_bytes=1690)],
    )
    page = text([run])
    assert "| Notifier | per second | 8,000 | 8,000 - 8,000 | 1 |  |" in page
    assert "| Notifier | cpu" not in page
    assert "| Notifier | wal" not in page
