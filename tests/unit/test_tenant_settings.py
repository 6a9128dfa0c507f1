"""What the settings of a tenant do to its submits."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.filling import Unfilled
from notifier.domain.errors import InvalidNotification
from notifier.domain.notification import NewNotification
from notifier.domain.senders import Senders
from notifier.domain.tenants import Tenant, TenantId
from tests.unit.fakes_api import DEFAULT_RULES, submit_body

VALIDATOR = SubmitValidator(DEFAULT_RULES)
SHOP = TenantId("shop")


def sender(*senders: str, locale: str | None = None) -> Sender:
    tenant = Tenant(
        id=SHOP, note="", created_at=datetime.now(UTC), senders=Senders(senders), locale=locale
    )
    return Sender(SHOP, tenants={SHOP: tenant})


@pytest.mark.parametrize(
    ("given", "of_tenant", "used"),
    [("fr", "de", "fr"), (None, "de", "de"), (None, None, None)],
)
def test_a_submit_without_a_locale_has_that_of_its_tenant(
    given: str | None, of_tenant: str | None, used: str | None
) -> None:
    body = submit_body(template="order", locale=given)
    del body["content"]
    unfilled = VALIDATOR.validate(json.dumps(body).encode(), sender(locale=of_tenant))
    assert isinstance(unfilled, Unfilled)
    assert unfilled.locale == used


def test_a_template_is_sent_from_the_first_mailbox_of_the_tenant() -> None:
    body = submit_body(template="order")
    del body["content"]
    by = sender("shop.example", "Shop", "Shop <a@shop.example>", "b@shop.example")
    unfilled = VALIDATOR.validate(json.dumps(body).encode(), by)
    assert isinstance(unfilled, Unfilled)
    assert unfilled.others["from"] == "Shop <a@shop.example>"


@pytest.mark.parametrize(
    ("given", "is_allowed"),
    [("Shop", True), ("shop", False), ("+15005550006", False), (None, True)],
)
def test_a_text_message_is_from_a_number_or_name_of_the_tenant(
    given: str | None,
    is_allowed: bool,
) -> None:
    body = submit_body(
        channel="sms", recipient="+15005550006", content={"body": "Hi", "from": given}
    )
    text, by = json.dumps(body).encode(), sender("shop.example", "Shop")
    if is_allowed:
        new = VALIDATOR.validate(text, by)
        assert isinstance(new, NewNotification)
        assert json.loads(new.content)["from"] == "Shop"
        return
    with pytest.raises(InvalidNotification) as caught:
        VALIDATOR.validate(text, by)
    assert caught.value.field == "content.from"
