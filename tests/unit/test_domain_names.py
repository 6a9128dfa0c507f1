from __future__ import annotations

import pytest

from notifier.domain.domain_names import InvalidDomain, ascii_domain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com", "example.com"),
        ("Example.COM", "Example.COM"),
        ("straße.test", "xn--strae-oqa.test"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("ς.example", "xn--3xa.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_a_domain_is_converted_by_idna_2008(name: str, expected: str) -> None:
    assert ascii_domain(name) == expected


@pytest.mark.parametrize("name", ["☃.example", "a..ö", "ö" * 70 + ".example"])
def test_a_name_without_an_ascii_form_is_an_error(name: str) -> None:
    with pytest.raises(InvalidDomain, match="no ASCII form"):
        ascii_domain(name)
