"""Checks the fields of a submit that concern its template."""

from __future__ import annotations

from typing import Final

import msgspec

from notifier.api.requests import Content, Submit
from notifier.api.submission.content import check_object, is_given
from notifier.domain.errors import InvalidNotification
from notifier.domain.templates import (
    LOCALE_EXPECTED,
    MAX_VARIABLES_BYTES,
    REF_EXPECTED,
    TemplateRef,
    is_locale,
)

_OF_TEMPLATE: Final = ("subject", "body", "html", "data", "mime")
_NO_VARIABLES: Final = b"{}"


def checked_ref(submit: Submit) -> TemplateRef | None:
    """Returns the template that a submit names, None if it names none."""
    if submit.template is None:
        return None
    try:
        return TemplateRef.parse(submit.template)
    except ValueError as error:
        raise InvalidNotification("template", REF_EXPECTED) from error


def checked_variables(submit: Submit) -> bytes:
    """Returns the variables as JSON. They need a template."""
    if not is_given(submit.variables):
        return _NO_VARIABLES
    variables = bytes(submit.variables)
    if submit.template is None:
        raise InvalidNotification("variables", "null: there is no template")
    if len(variables) > MAX_VARIABLES_BYTES:
        raise InvalidNotification("variables", f"at most {MAX_VARIABLES_BYTES:,} bytes of JSON")
    check_object(submit.variables, "variables")
    return variables


def checked_locale(submit: Submit) -> str | None:
    """Returns the locale. It needs a template."""
    locale = submit.locale
    if locale is None:
        return None
    if submit.template is None:
        raise InvalidNotification("locale", "null: there is no template")
    if not is_locale(locale):
        raise InvalidNotification("locale", LOCALE_EXPECTED)
    return locale


def content_beside_template(content: Content | None) -> None:
    """Raises InvalidNotification if the content has a part that the template has."""
    for name in _OF_TEMPLATE:
        part = getattr(content, name, None)
        if is_given(part) if isinstance(part, msgspec.Raw) else part:
            raise InvalidNotification(f"content.{name}", "null: the template has it")
