from __future__ import annotations

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, validate_email
from hypothesis import assume, given
from hypothesis import strategies as st

from notifier.adapters.providers.smtp.addresses import Mailbox
from notifier.api.rules import AddressKind
from notifier.api.submission.addresses import _PLAIN_EMAIL, checked_recipient
from notifier.domain.errors import InvalidNotification

GOOD = [
    (AddressKind.EMAIL, "ada@example.com"),
    (AddressKind.EMAIL, "flaky-2+7@sandbox.test"),
    (AddressKind.EMAIL, "ok@localhost"),
    (AddressKind.EMAIL, "o'neill@mail.example.co.uk"),
    (AddressKind.EMAIL, "ada@bücher.example"),
    (AddressKind.PHONE, "+15005550006"),
    (AddressKind.PHONE, "+15005550017"),
    (AddressKind.PHONE, "+4915112345678"),
    (AddressKind.TOKEN, "fate-throttle-2-abc"),
    (AddressKind.TOKEN, "x" * 4096),
]
BAD = [
    (AddressKind.EMAIL, ""),
    (AddressKind.EMAIL, "ada"),
    (AddressKind.EMAIL, "ada@"),
    (AddressKind.EMAIL, "@example.com"),
    (AddressKind.EMAIL, "ada@@example.com"),
    (AddressKind.EMAIL, "ada@nowhere"),
    (AddressKind.EMAIL, "ada@example..com"),
    (AddressKind.EMAIL, ".ada@example.com"),
    (AddressKind.EMAIL, "ada@-example.com"),
    (AddressKind.EMAIL, "Ada <ada@example.com>"),
    (AddressKind.EMAIL, "ada@example.com\n"),
    (AddressKind.EMAIL, "ada@example.com\r\nBcc: eve@example.com"),
    (AddressKind.EMAIL, "a\0da@example.com"),
    (AddressKind.EMAIL, "a" * 65 + "@example.com"),
    (AddressKind.EMAIL, "ada@" + "example." * 40 + "com"),
    (AddressKind.PHONE, "5005550006"),
    (AddressKind.PHONE, "+1 500 555 0006"),
    (AddressKind.PHONE, "+1500555000"),
    (AddressKind.PHONE, "+150055500066"),
    (AddressKind.PHONE, "+999123456789"),
    (AddressKind.PHONE, "+15005550006\n"),
    (AddressKind.PHONE, "+\u0661\u0665\u0660\u0660\u0665\u0665\u0665\u0660\u0660\u0660\u0666"),
    (AddressKind.TOKEN, ""),
    (AddressKind.TOKEN, "with space"),
    (AddressKind.TOKEN, "tökén"),
    (AddressKind.TOKEN, "x" * 4097),
]
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(("kind", "recipient"), GOOD)
def test_a_valid_address_is_accepted(kind: AddressKind, recipient: str) -> None:
    checked_recipient(kind, recipient)


@pytest.mark.parametrize(
    ("recipient", "stored"),
    [
        ("u1@straße.test", "u1@xn--strae-oqa.test"),
        ("Ada@BÜCHER.example", "Ada@xn--bcher-kva.example"),
        ("änn@example.com", "änn@example.com"),
        ("Ada@Example.com", "Ada@Example.com"),
    ],
)
def test_an_international_domain_is_stored_as_it_is_sent(recipient: str, stored: str) -> None:
    assert checked_recipient(AddressKind.EMAIL, recipient) == stored
    assert Mailbox.parse(stored).spec == stored


@pytest.mark.parametrize(("kind", "recipient"), BAD)
def test_an_invalid_address_is_refused(kind: AddressKind, recipient: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        checked_recipient(kind, recipient)
    assert caught.value.field == "recipient"


@given(
    local=st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,66}", fullmatch=True),
    domain=st.lists(LABEL, min_size=1, max_size=4).map(".".join),
)
def test_the_fast_check_accepts_nothing_that_the_library_refuses(local: str, domain: str) -> None:
    special = {name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES}
    assume(domain.rpartition(".")[2] not in special)
    address = f"{local}@{domain}"
    if _PLAIN_EMAIL.fullmatch(address):
        validate_email(address, strict=True, check_deliverability=False)
