"""The dashboards: up to date, readable, and with queries of exposed metrics only."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml  # type: ignore[import-untyped]

from grafana import generate
from grafana.colours import BREAKER_RANKS, LIMIT_RANKS
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.controls import BreakerState
from tests.dashboards import FILES, Json, PanelQuery, cells, dashboards, panels, queries
from tests.promql import TARGET, exposed, labels_of

KNOWN = exposed()
MAX_PANELS = 12
COLUMNS = 24
EACH = pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard["uid"])
EACH_QUERY = pytest.mark.parametrize("query", queries(), ids=str)


def test_the_committed_files_are_up_to_date() -> None:
    assert generate.main("--check") == 0


def test_a_file_that_differs_or_is_not_generated_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert generate.main() == 0
    (tmp_path / "dashboards/queue.json").write_text("{}")
    (tmp_path / "dashboards/custom.json").write_text("{}")

    assert generate.main("--check") == 1
    printed = capsys.readouterr().out
    assert "dashboards/queue.json" in printed
    assert "dashboards/custom.json" in printed
    assert "overview" not in printed


def test_there_are_four_dashboards() -> None:
    assert {file.stem for file in FILES} == {"overview", "queue", "providers", "workers"}
    assert {dashboard["uid"] for dashboard in dashboards()} == {
        f"notifier-{file.stem}" for file in FILES
    }


@EACH_QUERY
def test_a_query_reads_exposed_metrics_and_sums_only_figures_of_one_process(
    query: PanelQuery,
) -> None:
    labels = labels_of(promql.parse(query.filled()), KNOWN)
    assert set(re.findall(r"{{(\w+)}}", query.legend)) == labels


@EACH_QUERY
def test_a_filled_query_has_no_variable_left(query: PanelQuery) -> None:
    assert re.findall(r"\$\w+", query.filled()) in ([], ["$1"])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("sum(notifier_nothing)", "no process exposes"),
        ("sum by (provider) (notifier_consumers)", "which is not there"),
        ('sum(notifier_consumers{queue="email.urgent"})', "has no queue="),
        ('sum(notifier_consumers{channel="email"})', "has no label channel"),
        ("sum(notifier_ready)", "take the max"),
        ("sum(2 * notifier_due or notifier_due)", "take the max"),
        ("sum(notifier_accepted_total)", "take its rate"),
        ("sum(rate(notifier_consumers[1m]))", "it has no rate"),
        ("histogram_quantile(0.9, sum(rate(notifier_accept_seconds_bucket[1m])))", "needs le"),
        ("sum by (queue) (notifier_consumers) / sum(notifier_consumers)", "never meet"),
        ("notifier_consumers and on (queue) notifier_workers", "not on both"),
    ],
)
def test_a_wrong_query_is_rejected(wrong: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(reason)):
        labels_of(promql.parse(wrong), KNOWN)


def test_every_state_of_the_domain_has_a_rank() -> None:
    assert {limit.value for limit in Limit} == LIMIT_RANKS.keys()
    assert {state.value for state in BreakerState} == BREAKER_RANKS.keys() | {"closed"}


@EACH
def test_every_panel_has_a_description_and_a_unit(dashboard: Json) -> None:
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"]) <= 300, panel["title"]
        assert panel["type"] == "alertlist" or panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["legendFormat"] for target in panel.get("targets", ()))


@EACH
def test_titles_and_ids_are_unique(dashboard: Json) -> None:
    for key in ("id", "title"):
        counted = Counter(panel[key] for panel in dashboard["panels"])
        assert [value for value, count in counted.items() if count > 1] == []
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(letters) == len(set(letters))


@EACH
def test_no_panel_covers_another_or_leaves_the_grid(dashboard: Json) -> None:
    covered = Counter(cell for panel in dashboard["panels"] for cell in cells(panel))
    assert [cell for cell, count in covered.items() if count > 1] == []
    assert {x for x, _ in covered} == set(range(COLUMNS))


@EACH
def test_a_dashboard_has_few_panels_and_begins_with_a_heading(dashboard: Json) -> None:
    assert len(panels(dashboard)) <= MAX_PANELS
    assert dashboard["panels"][0]["type"] == "row"


@EACH
def test_colours_and_dashes_are_for_existing_series(dashboard: Json) -> None:
    for panel in panels(dashboard):
        names = [target["legendFormat"] for target in panel.get("targets", ())]
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            matcher = override["matcher"]
            is_regex = matcher["id"] == "byRegexp"
            pattern = matcher["options"].strip("/") if is_regex else None
            assert any(
                re.search(pattern, name) if pattern else could_be(matcher["options"], name)
                for name in names
            ), f"{panel['title']}: no series is named {matcher['options']}"


def could_be(name: str, legend: str) -> bool:
    """Whether a series with this legend can have the name."""
    return bool(re.fullmatch(re.sub(r"\\{\\{\w+\\}\\}", r"\\S+", re.escape(legend)), name))


@EACH
def test_every_data_source_is_the_variable_and_no_host_is_named(dashboard: Json) -> None:
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    for source in (panel["datasource"] for panel in panels(dashboard) if "datasource" in panel):
        assert source == {"type": "prometheus", "uid": "${datasource}"}
    assert "://" not in str(dashboard)


@EACH
def test_a_variable_is_filled_from_an_exposed_label(dashboard: Json) -> None:
    for variable in dashboard["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert match
        assert match[2] in KNOWN[match[1]].values
        assert variable["name"] == match[2]


def provisioned(name: str) -> Any:
    return yaml.safe_load((generate.FOLDER / "provisioning" / name).read_text())


def test_the_provisioned_data_source_is_the_default_of_the_dashboards() -> None:
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    for dashboard in dashboards():
        chosen = dashboard["templating"]["list"][0]["current"]
        assert (chosen["value"], chosen["text"]) == (source["uid"], source["name"])


def test_the_dashboards_are_read_from_their_mount() -> None:
    (provider,) = provisioned("dashboards/notifier.yml")["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_no_metric_has_a_label_of_the_target() -> None:
    assert not any(TARGET & metric.values.keys() for metric in KNOWN.values())
