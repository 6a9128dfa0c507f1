"""Panels as Grafana 11 and later read them, without an id and a place: the layout gives those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final, NamedTuple

from grafana.colours import State

Json = dict[str, Any]

BAR: Final = "1m"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
TO_THE_QUEUE: Final = {
    "title": "Queue ${__field.labels.queue}",
    "url": "/d/notifier-queue?var-queue=${__field.labels.queue}&${__url_time_range}",
}


class Query(NamedTuple):
    """One query; its legend names each of its series."""

    expr: str
    legend: str


class Place(NamedTuple):
    """A panel and the room it takes, in columns of 24 and rows of 30 pixels."""

    panel: Json
    width: int
    height: int = 8


def timeseries(
    title: str,
    says: str,
    *queries: Query,
    unit: str,
    colours: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    stacked: bool = False,
    bars: bool = False,
    logarithmic: bool = False,
    most: float | None = None,
    links: bool = False,
) -> Json:
    """Lines over time, or bars of a minute or more each.

    `dashed` series are bounds to compare with: no area, never stacked.

    Without `colours` a series keeps its colour by its name. `links` leads from a series with a
    queue to that queue's dashboard.
    """
    defaults: Json = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "palette-classic-by-name"},
        "custom": _lines(stacked=stacked, bars=bars, logarithmic=logarithmic),
        "links": [TO_THE_QUEUE] if links else [],
    }
    if most is not None:
        defaults["max"] = most
    if logarithmic:
        del defaults["min"]
    overrides = [_coloured(name, colour) for name, colour in (colours or {}).items()]
    overrides += [_dashed(name) for name in dashed]
    options = {
        "legend": {
            "showLegend": True,
            "displayMode": "list",
            "placement": "bottom",
            "calcs": ["lastNotNull"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    panel = _panel("timeseries", title, says, queries, defaults, overrides, options)
    return panel | {"interval": BAR} if bars else panel


def state_timeline(
    title: str, says: str, *queries: Query, states: Sequence[State], links: bool = False
) -> Json:
    """One band a series; the number it has in a moment is the state."""
    mapped = {
        str(state.number): {"index": index, "text": state.name, "color": state.colour}
        for index, state in enumerate(states)
    }
    defaults: Json = {
        "unit": "none",
        "color": {"mode": "thresholds"},
        "custom": {"fillOpacity": 75, "lineWidth": 0, "insertNulls": False, "spanNulls": False},
        "mappings": [{"type": "value", "options": mapped}],
        "thresholds": {"mode": "absolute", "steps": [{"color": "text", "value": None}]},
        "links": [TO_THE_QUEUE] if links else [],
    }
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "perPage": 20,
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, says, queries, defaults, [], options)


def alerts(title: str, says: str) -> Json:
    """The alerts that fire or are about to, of every source that Grafana knows."""
    return {
        "type": "alertlist",
        "title": title,
        "description": says,
        "options": {
            "viewMode": "list",
            "groupMode": "default",
            "groupBy": [],
            "maxItems": 20,
            "sortOrder": 3,
            "dashboardAlerts": False,
            "alertName": "",
            "alertInstanceLabelFilter": "",
            "showInactiveAlerts": False,
            "stateFilter": {
                "firing": True,
                "pending": True,
                "noData": False,
                "normal": False,
                "error": True,
            },
        },
    }


def _panel(
    kind: str,
    title: str,
    says: str,
    queries: Sequence[Query],
    defaults: Json,
    overrides: Sequence[Json],
    options: Json,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": says,
        "datasource": SOURCE,
        "targets": [
            _target(letter, query) for letter, query in zip(ascii_uppercase, queries, strict=False)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
    }


def _target(letter: str, query: Query) -> Json:
    return {
        "refId": letter,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": True,
    }


def _lines(*, stacked: bool, bars: bool, logarithmic: bool) -> Json:
    return {
        "drawStyle": "bars" if bars else "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 40 if stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
    }


def _coloured(name: str, colour: str) -> Json:
    return _override("byName", name, color={"mode": "fixed", "fixedColor": colour})


def _dashed(name: str) -> Json:
    look: Json = {
        "custom.lineStyle": {"fill": "dash", "dash": [8, 8]},
        "custom.fillOpacity": 0,
        "custom.stacking": {"mode": "none", "group": "B"},
    }
    return _override("byRegexp", f"/{name}/", **look)


def _override(matcher: str, name: str, **properties: Any) -> Json:  # noqa: ANN401 Grafana's JSON
    return {
        "matcher": {"id": matcher, "options": name},
        "properties": [{"id": each, "value": value} for each, value in properties.items()],
    }
