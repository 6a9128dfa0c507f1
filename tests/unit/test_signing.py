"""Tokens that the deployment signs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.signing import Purpose, Signer

OLD, NEW = b"o" * 32, b"n" * 32
SIGNER = Signer([NEW, OLD])


@given(st.text(max_size=50))
def test_what_was_signed_is_verified_also_after_a_rotation(payload: str) -> None:
    assert SIGNER.verify(Purpose.SESSION, SIGNER.sign(Purpose.SESSION, payload)) == payload
    before = Signer([OLD]).sign(Purpose.SESSION, payload)
    assert SIGNER.verify(Purpose.SESSION, before) == payload
    assert Signer([NEW]).verify(Purpose.SESSION, before) is None


@given(st.text(max_size=100))
def test_any_other_text_is_refused_without_an_error(text: str) -> None:
    assert SIGNER.verify(Purpose.SESSION, text) is None


@given(st.integers(0, 47), st.characters())
def test_a_token_with_one_other_character_is_refused(at: int, character: str) -> None:
    token = SIGNER.sign(Purpose.SESSION, "8Rk2vQ0ZpLx1")
    changed = token[:at] + character + token[at + 1 :]
    verified = SIGNER.verify(Purpose.SESSION, changed)
    assert verified == ("8Rk2vQ0ZpLx1" if changed == token else None)


def test_a_signer_needs_a_secret() -> None:
    with pytest.raises(ValueError, match="no secret"):
        Signer([])
