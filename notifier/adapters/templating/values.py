"""The variables as templates see them: objects and arrays without Python's methods.

MiniJinja offers the methods of a Python object to templates, so that `order.items` or `order.count`
would be a method where the order has no such field, and no undefined name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec


class ObjectValue:
    """A JSON object. A field that is null is undefined, as if it was not there."""

    __slots__ = ("_asked", "fields_")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields_ = {name: value for name, value in fields.items() if value is not None}
        self._asked: object = None

    def __getitem__(self, name: str) -> object:
        if name in self.fields_:
            return value_of(self.fields_[name])
        self._asked = name
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields_)

    def __len__(self) -> int:
        return len(self.fields_)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectValue) and self.fields_ == other.fields_

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return msgspec.json.encode(self.fields_).decode()

    @property
    def items(self) -> None:
        """Makes this a mapping for MiniJinja, which asks for it after `__getitem__` has failed."""
        if self._asked == "items":
            self._asked = None
            raise AttributeError("items")


class ArrayValue:
    """A JSON array."""

    __slots__ = ("elements_",)

    def __init__(self, elements: Sequence[Any]) -> None:
        self.elements_ = elements

    def __getitem__(self, index: int) -> object:
        return value_of(self.elements_[index])

    def __len__(self) -> int:
        return len(self.elements_)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArrayValue) and self.elements_ == other.elements_

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return msgspec.json.encode(self.elements_).decode()


Sequence.register(ArrayValue)


def value_of(decoded: Any) -> object:  # noqa: ANN401 any JSON
    """Return a decoded JSON value as templates see it."""
    if isinstance(decoded, dict):
        return ObjectValue(decoded)
    if isinstance(decoded, list):
        return ArrayValue(decoded)
    return decoded


def plain(value: object) -> object:
    """Return a value of a template as JSON encoders know it."""
    if isinstance(value, ObjectValue):
        return value.fields_
    if isinstance(value, ArrayValue):
        return value.elements_
    return value
