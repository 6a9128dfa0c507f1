"""`make bench`: what it makes of samples, of rounds and of committed results, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks.bench.__main__ as main
from benchmarks import promises
from benchmarks.bench.__main__ import Measuring
from benchmarks.bench.curve import crossing, latencies, throughput, waits_of
from benchmarks.bench.judge import judge
from benchmarks.bench.page import plotted, text
from benchmarks.bench.past import chunks
from benchmarks.bench.place import Servers
from benchmarks.bench.results import (
    Results,
    Round,
    load,
    ratios,
    save,
    spread,
    spreads,
)
from benchmarks.bench.submitting import Void, all_kept
from benchmarks.bench.targets import rows
from benchmarks.bench.words import CONFIGURATIONS, CURVES, FIGURES, SHARES, TITLES
from benchmarks.bench.workloads import (
    ALL,
    QUICK,
    QUICK_WORKLOADS,
    WORKLOADS,
    Size,
    Workload,
)
from benchmarks.promises import Row
from harness.rabbitmq import RabbitmqNode
from notifier.embedded.postgres import PostgresServer


def a_round(
    system: str, per_s: float, workload: str = "drain", figure: str = "per_s", number: int = 1
) -> Round:
    return Round(workload=workload, system=system, number=number, figures={figure: per_s})


def results(*rounds: Round, date: str = "2030-01-02 00:00") -> Results:
    machine = {
        "cores": 2,
        "processor": "one",
        "memory_gib": 4.0,
        "system": "Linux",
        "python": "3.11.7",
        "commit": "0123456789ab",
    }
    return Results(date=date, machine=machine, versions={"celery": "5.6"}, rounds=rounds)


def test_the_rate_is_that_between_the_tenth_and_the_ninetieth_percentile() -> None:
    slow_ends = [(0.0, 0), (10.0, 100), (12.0, 900), (30.0, 1000)]
    assert throughput(slow_ends, 1000) == pytest.approx(400)


def test_an_instant_between_two_samples_is_on_their_line() -> None:
    assert crossing([(1.0, 0), (2.0, 0), (3.0, 10)], 5) == pytest.approx(2.5)


def test_what_was_never_done_has_no_instant() -> None:
    with pytest.raises(ValueError, match="never came to 11"):
        crossing([(1.0, 0), (2.0, 10)], 11)


def test_only_the_queue_asked_for_has_waits() -> None:
    log = "email.high 10.000000 10.250000\nsms.medium 10.0 19.0\nemail.high 11.0 11.5\n"
    assert waits_of(log, "email.high") == [(10.0, 0.25), (11.0, 0.5)]


def test_latencies_are_in_milliseconds() -> None:
    assert latencies([0.1, 0.2, 0.3], "_before") == pytest.approx(
        {"p50_before_ms": 200, "p99_before_ms": 300}
    )


@pytest.mark.parametrize(
    ("stored", "is_kept"), [(99, False), (100, True), (164, True), (165, False)]
)
def test_not_one_answered_submit_may_be_lost_and_one_a_connection_be_under_way(
    stored: int, is_kept: bool
) -> None:
    assert all_kept(100, stored) is is_kept


def test_a_spread_has_the_median_and_both_ends() -> None:
    found = spread([30.0, 10.0, 20.0])
    assert (found.median, found.least, found.most, found.rounds) == (20, 10, 30, 3)


def test_a_round_that_broke_does_not_count() -> None:
    broken = Round(workload="drain", system="Taskiq", number=2, error="ChildFailed: no")
    table = spreads([a_round("Taskiq", 5), broken])
    assert table["drain", "Taskiq", "per_s"].rounds == 1


def test_a_ratio_above_one_says_that_notifier_is_better() -> None:
    rates = [a_round("Notifier", 300), a_round("Taskiq", 100)]
    waits = [
        a_round(name, ms, "hang", "p99_during_ms") for name, ms in (("Notifier", 10), ("A", 40))
    ]
    found = ratios(spreads([*rates, *waits]))
    assert found["drain", "Taskiq", "per_s"] == pytest.approx(3)
    assert found["hang", "A", "p99_during_ms"] == pytest.approx(4)


def test_without_notifier_there_is_no_ratio() -> None:
    assert ratios(spreads([a_round("Taskiq", 100)])) == {}


@pytest.mark.parametrize(("now", "is_met"), [(160, True), (161, True), (159, False)])
def test_a_ratio_may_fall_to_four_fifths_of_the_committed_one(now: float, is_met: bool) -> None:
    committed = [a_round("Notifier", 200), a_round("Taskiq", 100)]
    (verdict,) = judge([a_round("Notifier", now), a_round("Taskiq", 100)], committed)
    assert verdict.is_met is is_met


def test_a_slower_machine_is_no_miss() -> None:
    committed = [a_round("Notifier", 200), a_round("Taskiq", 100)]
    (verdict,) = judge([a_round("Notifier", 20), a_round("Taskiq", 10)], committed)
    assert verdict.is_met


def test_what_was_never_committed_is_no_miss() -> None:
    (verdict,) = judge([a_round("Notifier", 1), a_round("Taskiq", 100)], [])
    assert verdict.then is None
    assert verdict.is_met


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = results(a_round("Notifier", 1.5))
    save(written, tmp_path)
    (read,) = load(tmp_path)
    assert read.rounds == list(written.rounds)
    assert (read.date, read.machine) == (written.date, written.machine)


def test_there_may_be_no_results(tmp_path: Path) -> None:
    assert load(tmp_path) == []


def test_a_workload_counts_as_it_was_measured_last(tmp_path: Path) -> None:
    save(results(a_round("Notifier", 3), date="2030-01-03 00:01"), tmp_path)
    both = (a_round("Notifier", 1), a_round("Notifier", 2, workload="submit_1"))
    save(results(*both, date="2030-01-02 23:59"), tmp_path)
    save(results(a_round("Notifier", 0), date="2029-12-31 12:00"), tmp_path)
    assert [
        (run.date, one.workload, one.figures["per_s"])
        for run in load(tmp_path)
        for one in run.rounds
    ] == [("2030-01-02 23:59", "submit_1", 2), ("2030-01-03 00:01", "drain", 3)]


def test_the_page_has_medians_spreads_ratios_and_shares() -> None:
    limit = Round(workload="limits", system="RabbitMQ", number=1, figures={"consume_per_s": 2000.0})
    run = results(
        *(a_round("Notifier", value, number=n) for n, value in enumerate((90, 300, 200))),
        a_round("Taskiq", 400),
        limit,
        Round(workload="drain", system="Celery", number=1, error="Void: it broke\nlog"),
    )
    page = text([run])
    assert "| Notifier | per second | 200 | 90.0 - 300 | 3 |  |" in page
    assert "| Taskiq | per second | 400 | 400 - 400 | 1 | 0.50 x |" in page
    assert f"| {TITLES['drain']} | RabbitMQ: consume per second | 10% |" in page
    assert "- drain, Celery, round 1: Void: it broke\n" in page
    assert "- 2030-01-02 00:00 UTC, commit `0123456789ab`: drain, limits. 2 cores" in page


def test_targets_are_judged_by_what_the_workloads_measured() -> None:
    hang = {"p99_before_ms": 10.0, "p99_during_ms": 10.9}
    run = results(
        a_round("Notifier", 350),
        a_round("Dramatiq", 200),
        a_round("pgqueuer", 200),
        Round(workload="hang", system="Notifier", number=1, figures=hang),
    )
    assert [(row.target, row.measured, row.verdict) for row in rows([run])] == [
        (">= 1.1 x", "1.75 x", "met"),
        (">= 2.5 x", "1.75 x", "missed"),
        ("<= 1.1 x", "1.09 x", "met"),
    ]
    assert "| drain | drained, beside Dramatiq | >= 2.5 x | 1.75 x | missed | 0123" in text([run])


def test_a_share_is_of_a_limit_of_the_same_run() -> None:
    figures = {"consume_per_s": 2000.0}
    limit = Round(workload="limits", system="RabbitMQ", number=1, figures=figures)
    assert "of the limit" not in text([results(a_round("Notifier", 200)), results(limit)])


def test_a_plot_has_a_bar_for_each_system() -> None:
    lines = plotted(spreads([a_round("Notifier", 2), a_round("Taskiq", 4)])).splitlines()
    assert [line.split("\t")[2:] for line in lines] == [
        ["", "sends per second", "Notifier", "2", "2", "2"],
        ["", "sends per second", "Taskiq", "4", "4", "4"],
    ]


def test_a_curve_has_its_points_and_nothing_else_of_what_was_measured() -> None:
    figures = {"1_per_s": 5.0, "2_per_s": 4.0, "cpu_us": 900.0}
    rounds = [Round(workload="processes", system="Notifier", number=1, figures=figures)]
    assert [line.split("\t")[4:] for line in plotted(spreads(rounds)).splitlines()] == [
        ["1", "5.0", "5.0", "5.0"],
        ["2", "4.0", "4.0", "4.0"],
    ]


def test_a_workload_that_no_longer_exists_is_not_on_the_page() -> None:
    old = results(a_round("Notifier", 1, workload="old"), date="2029-01-01 00:00")
    page = text([old, results(a_round("Notifier", 2))])
    assert "old" not in page.partition("## Where and when")[2]
    assert "2029-01-01" not in page


@pytest.mark.parametrize(
    ("rows", "each"), [(0, []), (300, [300]), (2_500_000, [1_000_000, 1_000_000, 500_000])]
)
def test_the_past_is_loaded_a_million_rows_at_a_time(rows: int, each: list[int]) -> None:
    assert list(chunks(rows)) == each


class FailingSetting:
    def __enter__(self) -> Servers:
        raise Void("no rows")

    def __exit__(self, *_: object) -> None: ...


def test_a_setting_that_fails_leaves_the_other_workloads_their_rounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing = Workload({"Notifier": lambda _, __: {}}, lambda _, __: FailingSetting())
    good = Workload({"Notifier": lambda _, __: {"per_s": 1.0}})
    monkeypatch.setattr(main, "WORKLOADS", {"past": failing, "drain": good})
    servers = Servers(tmp_path, PostgresServer(tmp_path), RabbitmqNode(tmp_path))
    measuring = Measuring(servers, Size(), 2, [])
    measuring.run(["past", "drain"])
    assert [(one.workload, one.number, one.error) for one in measuring.rounds] == [
        ("past", 1, "Void: no rows"),
        ("drain", 1, ""),
        ("drain", 2, ""),
    ]


def test_promises_are_kept_line_by_line_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "promised.tsv"
    assert promises.load(path) == []
    first, other = (Row(line, "p99", "<= 5 ms", "4 ms", "met", "abc") for line in ("one", "two"))
    promises.save([first, other], path)
    again = first._replace(measured="6 ms", verdict="missed", commit="def")
    promises.save([again], path)
    assert promises.load(path) == [again, other]
    page = text([results(a_round("Notifier", 1))], promises.load(path))
    assert "| one | p99 | <= 5 ms | 6 ms | missed | def |" in page


def test_every_workload_has_a_title_and_every_system_a_configuration() -> None:
    assert list(TITLES) == list(WORKLOADS)
    measured = {name for workload in WORKLOADS.values() for name in workload.measures}
    assert measured - {"RabbitMQ", "Postgres"} <= set(CONFIGURATIONS)
    assert {*FIGURES, *CURVES, *(share.workload for share in SHARES), *QUICK_WORKLOADS} <= set(
        WORKLOADS
    )
    assert set(QUICK) <= {system.name for system in ALL}
