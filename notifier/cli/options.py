"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from cyclopts import Parameter

from notifier.domain.errors import ConfigError
from notifier.domain.key_rate import MAX_RATE_PER_S, MIN_RATE_PER_S
from notifier.domain.tenants import TenantId, tenant_id

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, for programs.")]
AsCsv = Annotated[
    bool, Parameter(name="--csv", negative="", help="Print CSV, with the fields of --json.")
]
Url = Annotated[
    str | None,
    Parameter(
        name="--url",
        help="URL of the API.",
        show_default=lambda _: "the address of [api] in the settings",
    ),
]
Tenant = Annotated[
    str | None,
    Parameter(name="--tenant", help="Whose it is, with a deployment key.", show_default=False),
]
DryRun = Annotated[
    bool, Parameter(name="--dry-run", negative="", help="Only show what would change.")
]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do not ask.")]

MAX_NOTE_LENGTH: Final = 300


def tenant_option(name: str) -> TenantId:
    """Return the tenant that an option names. Raises ConfigError if it is not a name."""
    try:
        return tenant_id(name)
    except ValueError as error:
        raise ConfigError(f"tenant: {error}") from error


def of_tenant(name: str | None) -> Mapping[str, str]:
    """Return what names a tenant to the API. Raises ConfigError if it is not a name."""
    if name is None:
        return {}
    tenant_option(name)
    return {"tenant": name}


def checked_rate(rate: float | None) -> float | None:
    """Return a rate. Raises ConfigError if nothing can be held to it."""
    if rate is not None and not MIN_RATE_PER_S <= rate <= MAX_RATE_PER_S:
        expected = f"a number from {MIN_RATE_PER_S:f} to {MAX_RATE_PER_S:,.0f}"
        raise ConfigError(f"--rate: got {rate:g}, expected {expected}")
    return rate


def shown_rate(rate: float | None) -> str:
    """Return how a rate is shown."""
    return "no rate" if rate is None else f"rate {rate:g}/s"


def one_line(note: str) -> str:
    """Return a note. Raises ConfigError if it is too long or has control characters."""
    if len(note) > MAX_NOTE_LENGTH or not note.isprintable():
        raise ConfigError(f"--note: expected one line of at most {MAX_NOTE_LENGTH} characters")
    return note
