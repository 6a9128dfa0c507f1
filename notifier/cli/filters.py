"""The filters of notifications, as options of the commands that list or change many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from notifier.domain.lookups import LookupKind
from notifier.domain.value_lists import separated

METADATA: Final = "metadata"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WaitingFilters:
    """Filters of what waits. One takes several values with commas between them."""

    status: Annotated[str | None, Parameter(help="Such as failed, or failed,expired.")] = None
    tenant: Annotated[str | None, Parameter(help="With a deployment key.")] = None
    mode: Annotated[
        Literal["live", "test"] | None, Parameter(help="Live ones, or those of tests.")
    ] = None
    channel: Annotated[str | None, Parameter(help="Such as email.")] = None
    priority: Annotated[str | None, Parameter(help="Such as high,medium.")] = None
    tag: Annotated[str | None, Parameter(help="The caller's label.")] = None
    recipient: Annotated[
        str | None, Parameter(name=["--recipient", "--to"], help="To whom (lookups.recipient).")
    ] = None
    reference: Annotated[
        str | None, Parameter(help="The provider's id of the message (lookups.reference).")
    ] = None
    metadata: Annotated[
        dict[str, str] | None,
        Parameter(help="A key of lookups.metadata_keys: --metadata.KEY VALUE."),
    ] = None
    created_from: Annotated[str | None, Parameter(help="Not before this instant.")] = None
    created_to: Annotated[str | None, Parameter(help="Before this instant.")] = None

    def parameters(self) -> dict[str, str]:
        """Return those that are given, as parameters of a list."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        metadata = named.pop(METADATA) or {}
        named |= {f"{METADATA}.{key}": value for key, value in metadata.items()}
        return {name: value for name, value in named.items() if value is not None}

    def of_operation(self) -> Mapping[str, Sequence[str]]:
        """Return those that are given, as the filter of an operation."""
        return {name: _values(name, text) for name, text in self.parameters().items()}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filters(WaitingFilters):
    """The filters of a list: those of what waits, and of how notifications ended."""

    reason: Annotated[
        str | None, Parameter(help="Why it ended, with final values of --status.")
    ] = None
    provider: Annotated[
        str | None, Parameter(help="Who had it last, with final values of --status.")
    ] = None
    code: Annotated[
        str | None, Parameter(help="The provider's code, with final values of --status.")
    ] = None


NO_FILTERS: Final = Filters()
ALL_WAITING: Final = WaitingFilters()


def _values(name: str, text: str) -> Sequence[str]:
    is_searched = name in set(LookupKind) or name.startswith(f"{METADATA}.")
    return separated(text) if is_searched else text.split(",")
