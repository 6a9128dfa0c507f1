"""API keys: their text, what they may do, and that hostile text is refused without an error."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.credentials import (
    ENTROPY_BYTES,
    NO_CREDENTIAL,
    Credential,
    KeyId,
    Mode,
    new_credential,
    parse_credential,
)
from notifier.domain.keys import Key, KeyScope, find_key, granted
from notifier.domain.tenants import DEFAULT_TENANT, TenantId, tenant_id, tenant_name

# Fixed for ever: keys of this form are in use.
KNOWN = "ntf_live_000000000000" + "0" * 43
ONE = new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))


def stored(credential: Credential) -> Key:
    return Key(
        id=credential.id,
        digest=credential.digest,
        tenant=DEFAULT_TENANT,
        mode=credential.mode,
        scopes=(KeyScope.READ,),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_text_of_a_key_is_prefix_id_secret_and_checksum() -> None:
    credential = new_credential(Mode.LIVE, bytes(ENTROPY_BYTES))
    assert credential.text == KNOWN + "3GEZ3n"
    assert parse_credential(credential.text) == credential
    test_key = new_credential(Mode.TEST, os.urandom(ENTROPY_BYTES))
    assert test_key.text.startswith("ntf_test_" + test_key.id)
    assert len(test_key.text) == 70


def test_a_digest_is_the_sha_256_of_the_secret_and_no_repr_shows_the_secret() -> None:
    assert ONE.digest == sha256(ONE.text[21:64].encode()).digest()
    assert ONE.secret not in repr(ONE)
    assert repr(ONE.digest) not in repr(stored(ONE))


@given(st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES), st.sampled_from(Mode))
def test_every_key_is_read_back_from_its_text(entropy: bytes, mode: Mode) -> None:
    credential = new_credential(mode, entropy)
    assert parse_credential(credential.text) == credential


def test_too_little_entropy_makes_no_key() -> None:
    with pytest.raises(ValueError, match="entropy"):
        new_credential(Mode.LIVE, bytes(ENTROPY_BYTES - 1))


@given(st.text(max_size=200))
def test_any_other_text_holds_no_key(text: str) -> None:
    assert parse_credential(text) == NO_CREDENTIAL
    assert find_key(text, {ONE.id: stored(ONE)}) is None


@given(st.integers(0, 69), st.characters())
def test_a_key_with_one_other_character_holds_no_key(at: int, character: str) -> None:
    text = ONE.text[:at] + character + ONE.text[at + 1 :]
    found = find_key(text, {ONE.id: stored(ONE)})
    assert found == (stored(ONE) if text == ONE.text else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ONE.text[:-1],
        ONE.text + "0",
        ONE.text + "\n",
        " " + ONE.text,
        ONE.text.replace("live", "test"),
        ONE.text.replace("ntf", "NTF"),
        ONE.text[:-1] + "\udc80",
        ONE.text[:30] + "\0" + ONE.text[31:],
        ONE.text * 1000,
        "ntf_live_" + "\u0660" * 61,  # digits, but not those of base62
    ],
    ids=range(11),  # the key is another one in each process
)
def test_hostile_text_is_refused_without_an_error(text: str) -> None:
    assert find_key(text, {ONE.id: stored(ONE)}) is None


def test_a_key_is_found_only_with_its_secret_and_its_mode() -> None:
    key, other = stored(ONE), new_credential(Mode.LIVE, os.urandom(ENTROPY_BYTES))
    assert find_key(ONE.text, {ONE.id: key}) is key
    assert find_key(replace(ONE, secret=other.secret).text, {ONE.id: key}) is None
    assert find_key(replace(ONE, mode=Mode.TEST).text, {ONE.id: key}) is None
    assert find_key(ONE.text, {}) is None
    assert find_key("", {KeyId(""): key}) is None


def test_admin_includes_operate_which_includes_read_and_submit_stands_alone() -> None:
    submit, read, operate, admin = KeyScope
    assert granted([]) == frozenset()
    assert granted([submit]) == {submit}
    assert granted([operate]) == {read, operate}
    assert granted([admin]) == {read, operate, admin}
    assert granted([submit, read]) == {submit, read}


def test_the_default_tenant_is_stored_without_a_name() -> None:
    assert tenant_id("default") == DEFAULT_TENANT == ""
    assert tenant_name(DEFAULT_TENANT) == "default"
    assert tenant_id("shop") == "shop"
    assert tenant_name(TenantId("shop")) == "shop"


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "shop.eu", "shop\n", "s" * 65, "\u017fhop"])
def test_other_text_is_no_name_of_a_tenant(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        tenant_id(name)
