"""Panels in the JSON of Grafana 11 and later. The layout adds their ids and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final, NamedTuple

from grafana.colours import State

Json = dict[str, Any]

BAR: Final = "1m"
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
QUEUE_LINK: Final = {
    "title": "Queue ${__field.labels.queue}",
    "url": "/d/notifier-queue?var-queue=${__field.labels.queue}&${__url_time_range}",
}


class Query(NamedTuple):
    """One query; `legend` is the template of its series' names."""

    expr: str
    legend: str


class Place(NamedTuple):
    """A panel and its size, in columns of 24 and rows of 30 pixels."""

    panel: Json
    width: int
    height: int = 8


def timeseries(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    colours: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    stacked: bool = False,
    bars: bool = False,
    logarithmic: bool = False,
    maximum: float | None = None,
    links: bool = False,
) -> Json:
    """Return a panel of lines over time, or of bars of a minute or more each.

    `dashed` series are bounds to compare with: they have no area and are not stacked. A series
    that is not in `colours` gets a colour from its name. `links` adds a link from each series to
    the dashboard of its queue.
    """
    defaults: Json = {
        "unit": unit,
        "min": 0,
        "color": {"mode": "palette-classic-by-name"},
        "custom": _lines(stacked=stacked, bars=bars, logarithmic=logarithmic),
        "links": [QUEUE_LINK] if links else [],
    }
    if maximum is not None:
        defaults["max"] = maximum
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
    panel = _panel("timeseries", title, description, queries, defaults, overrides, options)
    return panel | {"interval": BAR} if bars else panel


def state_timeline(
    title: str, description: str, *queries: Query, states: Sequence[State], links: bool = False
) -> Json:
    """Return a panel with one band per series; the value of the series is the state's number."""
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
        "links": [QUEUE_LINK] if links else [],
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
    return _panel("state-timeline", title, description, queries, defaults, [], options)


def alerts(title: str, description: str) -> Json:
    """Return a list of the alerts that fire or are pending, of all sources of Grafana."""
    return {
        "type": "alertlist",
        "title": title,
        "description": description,
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
    description: str,
    queries: Sequence[Query],
    defaults: Json,
    overrides: Sequence[Json],
    options: Json,
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
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
    style: Json = {
        "custom.lineStyle": {"fill": "dash", "dash": [8, 8]},
        "custom.fillOpacity": 0,
        "custom.stacking": {"mode": "none", "group": "B"},
    }
    return _override("byRegexp", f"/{name}/", **style)


def _override(matcher: str, series: str, **properties: Any) -> Json:  # noqa: ANN401 Grafana's JSON
    return {
        "matcher": {"id": matcher, "options": series},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }
