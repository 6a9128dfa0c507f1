"""Compiles and renders templates with MiniJinja. Runs in the renderer's process: see child.py.

Fuel stops endless templates early, but not all of them: lists can be doubled without any. What it
does not stop, the limits of the process do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from html import escape
from typing import Any, Final
from urllib.parse import quote

import msgspec
from minijinja import Environment, TemplateError, safe

from notifier.adapters.templating.values import plain, value_of
from notifier.domain.templates import (
    TEXT_PARTS,
    FaultKind,
    Parts,
    TemplateFault,
)

FUEL: Final = 50_000
"""A variable of 100 kB that is escaped needs 6,300, a list of 200 items 2,500."""
MAX_COMPILED: Final = 32
DATA: Final = "data"
_HTML: Final = "html"
_KINDS: Final = {
    "SyntaxError": FaultKind.SYNTAX,
    "UndefinedError": FaultKind.UNDEFINED,
    "OutOfFuel": FaultKind.LIMIT,
}
_NAMES_TEMPLATE_ONLY: Final = frozenset(
    {
        *("SyntaxError", "UndefinedError", "UnknownFilter", "UnknownFunction", "UnknownTest"),
        *("UnknownMethod", "TemplateNotFound", "UnknownBlock"),
    }
)
"""Errors whose text is of the template. That of others may have values of variables in it."""
_OTHERS: Final = {
    "OutOfFuel": "it needs more work than a template may",
    "InvalidOperation": "an operation is impossible with these values",
    "TooManyArguments": "a filter, a test or a function gets too many arguments",
    "MissingArgument": "a filter, a test or a function lacks an argument",
}
_HTML_IN_JSON: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}
)


class Faulty(Exception):
    """A template cannot be compiled or rendered."""

    def __init__(self, *faults: TemplateFault) -> None:
        super().__init__(*map(str, faults))
        self.faults = faults


class Compiled:
    """The compiled parts of one channel in one locale."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        """Compile. Raises Faulty with the part and its line."""
        self._engine = Environment(
            undefined_behavior="strict",
            fuel=FUEL,
            auto_escape_callback=lambda name: name == _HTML,
            pycompat=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for name, function in _FILTERS.items():
            self._engine.add_filter(name, function)
        self._texts = [name for name in TEXT_PARTS if parts.get(name) is not None]
        for name in self._texts:
            self._add(name, parts[name])
        self._data = self._add_data(parts.get(DATA), DATA)

    def render(self, variables: Mapping[str, Any], max_bytes: int) -> Parts:
        """Render all parts. Raises Faulty, also if they are longer than `max_bytes` together."""
        values = {name: value_of(value) for name, value in variables.items() if value is not None}
        rendered: dict[str, object] = {}
        size = 0
        for name in self._texts:
            rendered[name] = text = self._render(name, values)
            size += len(text.encode())
            if size > max_bytes:
                detail = f"the text is longer than {max_bytes:,} bytes"
                raise Faulty(TemplateFault(kind=FaultKind.LIMIT, part=name, detail=detail))
        if self._data is not None:
            rendered[DATA] = self._render_data(self._data, values)
        return rendered

    def _add(self, name: str, source: str) -> None:
        try:
            self._engine.add_template(name, source)
        except TemplateError as error:
            raise Faulty(_fault(error, name, source)) from error

    def _add_data(self, data: Any, path: str) -> Any:  # noqa: ANN401 any JSON
        """Compile the strings in the data; returns it with a _Text in place of each."""
        if isinstance(data, dict):
            return {name: self._add_data(item, f"{path}.{name}") for name, item in data.items()}
        if isinstance(data, list):
            return [self._add_data(item, f"{path}.{n}") for n, item in enumerate(data)]
        if not isinstance(data, str):
            return data
        self._add(path, data)
        return _Text(path)

    def _render(self, name: str, values: Mapping[str, object]) -> str:
        try:
            return self._engine.render_template(name, **values)
        except TemplateError as error:
            raise Faulty(_fault(error, name)) from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            detail = _OTHERS["InvalidOperation"]
            raise Faulty(TemplateFault(kind=FaultKind.ERROR, part=name, detail=detail)) from error

    def _render_data(self, data: Any, values: Mapping[str, object]) -> Any:  # noqa: ANN401
        if isinstance(data, dict):
            return {name: self._render_data(item, values) for name, item in data.items()}
        if isinstance(data, list):
            return [self._render_data(item, values) for item in data]
        return self._render(data, values) if isinstance(data, _Text) else data


class _Text(str):
    """The name of a template in place of a string of the data."""

    __slots__ = ()


@lru_cache(MAX_COMPILED)
def compiled(parts: bytes) -> Compiled:
    """Compile encoded parts, unless they are among the last that were. Raises Faulty."""
    return Compiled(msgspec.json.decode(parts))


def render(parts: bytes, variables: bytes, max_bytes: int) -> bytes:
    """Render encoded parts with encoded variables. Raises Faulty."""
    decoded = msgspec.json.decode(variables, type=dict[str, Any])
    return msgspec.json.encode(compiled(parts).render(decoded, max_bytes))


def _fault(error: TemplateError, part: str, source: str = "") -> TemplateFault:
    kind = error.kind
    text = error.detail if kind in _NAMES_TEMPLATE_ONLY else _OTHERS.get(kind)
    return TemplateFault(
        kind=_KINDS.get(kind, FaultKind.ERROR),
        part=part,
        detail=(text or "it cannot be rendered")[:200],
        line=error.line or 0,
        column=_column(error.range, source),
    )


def _column(place: tuple[int, int] | None, source: str) -> int:
    """Return the column of a place, from 1; 0 if there is none. Places are counted in bytes."""
    if place is None or not source:
        return 0
    return column_after(source.encode()[: place[0]].decode(errors="replace"))


def column_after(text: str) -> int:
    """Return the column in which the next character stands, from 1."""
    return len(text) - text.rfind("\n")


def _defined(value: object) -> object:
    """Return the value, unless it is None: filters in Python get that for an undefined name."""
    if value is None:
        raise ValueError("undefined or null: use the default filter")
    return plain(value)


def _tojson(value: object, indent: int | None = None) -> str:
    text = json.dumps(
        _defined(value), ensure_ascii=False, default=plain, indent=indent and min(indent, 8)
    )
    return safe(text.translate(_HTML_IN_JSON))


def _urlencode(value: object) -> str:
    return quote(str(_defined(value)), safe="")


def _escape(value: object) -> str:
    text = _defined(value)
    return str(text) if hasattr(text, "__html__") else safe(escape(str(text)))


def _length(value: object) -> int:
    return len(_defined(value))  # type: ignore[arg-type] # TypeError is reported


_FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    "tojson": _tojson,
    "urlencode": _urlencode,
    "escape": _escape,
    "e": _escape,
    "length": _length,
    "count": _length,
}
"""In place of the engine's own, for which an undefined name is no error."""
