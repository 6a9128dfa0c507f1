"""Builds a dashboard from its sections: gives every panel its id and its position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from grafana.panels import SOURCE, Json, Place

SCHEMA: Final = 39  # of Grafana 11; later versions read it too
COLUMNS: Final = 24
TAG: Final = "notifier"


class Section(NamedTuple):
    """A heading and the lines of panels below it."""

    title: str
    lines: Sequence[Sequence[Place]]


def dashboard(
    name: str, description: str, sections: Sequence[Section], variables: Sequence[Json] = ()
) -> Json:
    """Return the dashboard `notifier-<name>`, with a variable for the data source added."""
    return {
        "uid": f"{TAG}-{name}",
        "title": f"Notifier / {name.capitalize()}",
        "description": description,
        "tags": [TAG],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [_links()],
        "annotations": {"list": []},
        "templating": {"list": [_source(), *variables]},
        "panels": placed(sections),
    }


def placed(sections: Sequence[Section]) -> list[Json]:
    """Return the panels in reading order: left to right, then down."""
    panels, top = list[Json](), 0
    for section in sections:
        panels.append(_heading(section.title, top))
        top += 1
        for line in section.lines:
            panels += _line(line, top)
            top += max(place.height for place in line)
    return [{"id": number, **panel} for number, panel in enumerate(panels, start=1)]


def variable(name: str, label: str, values: str, *, several: bool = False) -> Json:
    """Return a variable with the values of a label. With `several`, many or all can be chosen."""
    chosen: Json = {"text": "All", "value": "$__all"} if several else {}
    every: Json = {"allValue": ".+"} if several else {}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "definition": values,
        "query": {"qryType": 1, "query": values, "refId": "Variable"},
        "refresh": 1,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": chosen,
        **every,
    }


def _line(line: Sequence[Place], top: int) -> list[Json]:
    left, panels = 0, list[Json]()
    for panel, width, height in line:
        panels.append(panel | {"gridPos": {"x": left, "y": top, "w": width, "h": height}})
        left += width
    return panels


def _heading(title: str, top: int) -> Json:
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
    }


def _source() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
    }


def _links() -> Json:
    return {
        "type": "dashboards",
        "title": "Notifier",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
    }
