"""`python -m benchmarks.bench.page` writes docs/performance.md from the results that count."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import promises
from benchmarks.bench import targets
from benchmarks.bench.cost_page import costs, is_cost
from benchmarks.bench.curve import points
from benchmarks.bench.results import (
    NOTIFIER,
    Results,
    Spread,
    Table,
    is_better_high,
    load,
    ratios,
    spreads,
)
from benchmarks.bench.words import (
    CONFIGURATIONS,
    CURVES,
    FIGURES,
    HEAD,
    HOW,
    REMAINS,
    SHARES,
    TITLES,
    Share,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
PYTHON = ROOT / ".cache/bench/venv/bin/python"


def write(runs: Sequence[Results], page: Path = PAGE) -> None:
    """The page and its plots."""
    page.write_text(text(runs, promises.load()))
    draw(runs)


def draw(runs: Sequence[Results]) -> None:
    """Where matplotlib is not installed, the plots stay what they are."""
    PLOTS.mkdir(exist_ok=True)
    program = Path(__file__).with_name("plots.py")
    words = [str(PYTHON), str(program), str(PLOTS)]
    if not PYTHON.exists():
        return
    subprocess.run(words, input=plotted(_table_of(runs)), text=True, check=False)


def plotted(table: Table) -> str:
    """For plots.py, a line a bar or point: workload, title, unit of x (of a curve), unit, system or
    x, median, least, most.
    """
    bars = [
        (workload, TITLES[workload], "", unit, system, *_three(of))
        for workload, (figure, unit) in FIGURES.items()
        for (which, system, what), of in table.items()
        if which == workload and what == figure
    ]
    curves = [
        (workload, TITLES[workload], unit_of_x, unit, x, *_three(of))
        for workload, (unit_of_x, unit) in CURVES.items()
        for x, of in points(_figures(table, workload)).items()
    ]
    return "\n".join("\t".join(map(str, line)) for line in [*bars, *curves])


def _figures(table: Table, workload: str) -> Mapping[str, Spread]:
    return {figure: of for (which, _, figure), of in table.items() if which == workload}


def _three(of: Spread) -> tuple[float, float, float]:
    return of.median, of.least, of.most


def text(runs: Sequence[Results], promised: Sequence[promises.Row] = ()) -> str:
    """The whole page, without workloads that no longer exist."""
    runs = list(_known(runs))
    parts = [
        *_head(),
        *_workloads(_table_of(runs)),
        *_limits(runs),
        *_remains(),
        *_promised([*targets.rows(runs), *promised]),
        *_configurations(),
        *_runs(runs),
        *_errors(runs),
    ]
    return "\n".join(parts) + "\n"


def _known(runs: Sequence[Results]) -> Iterator[Results]:
    for run in runs:
        if rounds := [one for one in run.rounds if one.workload in TITLES]:
            yield replace(run, rounds=rounds)


def _table_of(runs: Sequence[Results]) -> Table:
    return spreads([one for run in runs for one in run.rounds])


def _head() -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield HEAD
    yield ""
    yield HOW


def _runs(runs: Sequence[Results]) -> Iterator[str]:
    yield from ("", "## Where and when", "")
    for run in runs:
        about = run.machine
        workloads = ", ".join(dict.fromkeys(one.workload for one in run.rounds))
        versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
        yield f"- {run.date} UTC, commit `{about['commit']}`: {workloads}. {about['cores']} cores"
        yield f"  ({about['processor']}), {about['memory_gib']} GiB, {about['system']}, Python"
        yield f"  {about['python']}, {versions}."


def _workloads(table: Table) -> Iterator[str]:
    better = ratios(table)
    for workload, title in TITLES.items():
        rows = [key for key in table if key[0] == workload]
        if not rows:
            continue
        yield from ("", f"## {title}", "")
        yield from _table(table, better, rows)
        yield from costs(table, workload)
        if workload in {*FIGURES, *CURVES} and (PLOTS / f"{workload}.svg").exists():
            yield from ("", f"![{title}](performance/{workload}.svg)")


def _table(
    table: Table,
    better: Mapping[tuple[str, str, str], float],
    rows: Sequence[tuple[str, str, str]],
) -> Iterator[str]:
    yield "| system | figure | median | min - max | rounds | Notifier is better by |"
    yield "|---|---|---:|---:|---:|---:|"
    for workload, system, figure in rows:
        if figure == "requests" or is_cost(figure):
            continue
        of = table[workload, system, figure]
        ratio = better.get((workload, system, figure))
        beside = "" if ratio is None else f"{ratio:.2f} x"
        span = f"{_shown(of.least)} - {_shown(of.most)}"
        cells = (system, _label(workload, figure), _shown(of.median), span, str(of.rounds), beside)
        yield f"| {' | '.join(cells)} |"


def _limits(runs: Sequence[Results]) -> Iterator[str]:
    """Of workloads that were measured in one run with the limits."""
    tables = [spreads(run.rounds) for run in runs]
    shares = [line for table in tables for share in SHARES if (line := _share(table, share))]
    if shares:
        yield from ("", "## Share of the limits that Notifier uses", "")
        yield from ("| Notifier | limit | share |", "|---|---|---:|", *shares)


def _share(table: Table, share: Share) -> str:
    """Empty where one of the two was not measured."""
    ours = table.get((share.workload, NOTIFIER, "per_s"))
    limit = table.get(("limits", share.server, share.figure))
    if ours is None or limit is None:
        return ""
    used = ours.median / limit.median
    figure = _label("limits", share.figure)
    return f"| {TITLES[share.workload]} | {share.server}: {figure} | {used:.0%} |"


def _remains() -> Iterator[str]:
    yield from ("", "## Where the remaining time goes", "", REMAINS)


def _promised(rows: Sequence[promises.Row]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", "## Promises and measurements", "")
    yield "The first lines belong to the workloads above. `make prove` measures the others, on real"
    yield "processes that send through the sandbox; the median of the rounds counts, and every"
    yield "round is in parentheses. A figure without a target is for information."
    yield "[ADR 27](adr/0027-judge-the-flood-test-below-full-cpu-load.md) explains why the flood is"
    yield "judged with 24 consumers; [Reliability](reliability.md) has the promises about faults."
    yield from ("", "| line | figure | target | measured | | commit |", "|---|---|---|---|---|---|")
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _configurations() -> Iterator[str]:
    yield from ("", "## Configuration of each system", "")
    yield from ("| system | configuration |", "|---|---|")
    for system, words in CONFIGURATIONS.items():
        yield f"| {system} | {words} |"


def _errors(runs: Sequence[Results]) -> Iterator[str]:
    void = [one for run in runs for one in run.rounds if one.error]
    left_out = dict.fromkeys(reason for run in runs for reason in run.left_out)
    if void or left_out:
        yield from ("", "## Rounds that do not count", "")
    for one in void:
        yield f"- {one.workload}, {one.system}, round {one.number}: {one.error.splitlines()[0]}"
    for reason in left_out:
        yield f"- left out: {reason.splitlines()[0]}"


def _label(workload: str, figure: str) -> str:
    words = figure.removesuffix("_ms").replace("_per_s", "").replace("_", " ")
    if workload in CURVES and words.isdigit():
        unit_of_x, _ = CURVES[workload]
        return f"per second ({unit_of_x}: {words})"
    if figure == "per_s":
        return "per second"
    return f"{words} per second" if is_better_high(figure) else f"{words} (ms)"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def main() -> int:
    runs = load()
    if not runs:
        print("there are no results: make bench", file=sys.stderr)
        return 1
    write(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
