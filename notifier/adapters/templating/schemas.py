"""JSON Schema 2020-12 of variables: regular expressions in linear time, no remote references."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from notifier.adapters.templating.engine import Faulty
from notifier.domain.templates import FaultKind, TemplateFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonschema_rs import Draft202012Validator, ValidationError

MAX_FAULTS: Final = 20
MAX_PATTERN_BYTES: Final = 1024 * 1024
"""The size of one compiled regular expression."""
MAX_COMPILED: Final = 32
_HIDDEN: Final = "the value"


def check(schema: bytes, variables: bytes) -> None:
    """Raise Faulty with the fields of the variables that do not fit."""
    decoded = msgspec.json.decode(variables)
    faults: list[TemplateFault] = []
    for error in _validator(schema).iter_errors(decoded):
        faults.append(_fault("variables", error))
        if len(faults) == MAX_FAULTS:
            break
    if faults:
        raise Faulty(*faults)


def faults_of(schema: bytes) -> Sequence[TemplateFault]:
    """Return what is wrong with a schema."""
    try:
        _validator(schema)
    except Faulty as error:
        return error.faults
    return ()


@lru_cache(MAX_COMPILED)
def _validator(schema: bytes) -> Draft202012Validator:
    """Compile a schema. Raises Faulty."""
    # Imported here: most templates have no schema, and the library takes memory.
    from jsonschema_rs import (  # noqa: PLC0415 as above
        Draft202012Validator,
        ReferencingError,
        RegexOptions,
        ValidationError,
    )

    decoded: Any = msgspec.json.decode(schema)
    options = RegexOptions(size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES)
    try:
        return Draft202012Validator(
            decoded, validate_formats=True, offline=True, pattern_options=options, mask=_HIDDEN
        )
    except ValidationError as error:
        raise Faulty(_fault("schema", error)) from error
    except (ReferencingError, ValueError) as error:
        detail = str(error).partition("\n")[0][:200]
        raise Faulty(TemplateFault(kind=FaultKind.SCHEMA, part="schema", detail=detail)) from error


def _fault(root: str, error: ValidationError) -> TemplateFault:
    return TemplateFault(
        kind=FaultKind.SCHEMA,
        part=".".join([root, *map(str, error.instance_path)]),
        detail=error.message[:200],
    )
