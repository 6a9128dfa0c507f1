"""The supervisor's pauses between starts, and the commands of its child processes."""

from __future__ import annotations

import sys

from notifier.cli.child_commands import child_commands
from notifier.cli.supervisor import STEADY_S, Child


def test_the_pauses_double_from_a_second_to_half_a_minute() -> None:
    child = Child(0, [])
    assert [child.restart_delay_s(0.1) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_after_a_process_that_ran_for_a_minute_the_pauses_start_at_a_second() -> None:
    child = Child(0, [])
    assert [child.restart_delay_s(ran) for ran in (0, 0, 0, STEADY_S, 0)] == [1, 2, 4, 1, 2]


def test_children_get_the_options_given_and_a_metrics_port_each() -> None:
    options = {"--host": "::1", "--port": None}
    commands = child_commands(
        "api", 3, metrics_port=7000, default_metrics_port=9101, options=options
    )
    assert commands == [
        [
            *(sys.executable, "-m", "notifier", "api", "--host=::1"),
            *(f"--metrics-port={7000 + number}", f"--process-number={number}"),
        ]
        for number in range(3)
    ]


def test_with_the_default_port_each_child_finds_its_own() -> None:
    commands = child_commands("worker", 2, metrics_port=8001, default_metrics_port=8001, options={})
    assert [command[-2] for command in commands] == ["--metrics-port=8001"] * 2
