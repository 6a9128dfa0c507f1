"""When two spellings of a recipient are the same recipient."""

from __future__ import annotations

from notifier.domain.domain_names import InvalidDomain, ascii_domain


def recipient_identity(recipient: str) -> str:
    """Return the normal form of a stored or given recipient. Raises nothing.

    An email address is in lower case, with the ASCII form of its domain. The part before the @ may
    be case-sensitive by the standard; but no large mail service makes a difference, and who asked
    for no more mail as Ada@example.com means ada@example.com, too. Phone numbers in E.164 form and
    tokens have one spelling.
    """
    local, at, domain = recipient.rpartition("@")
    if not at:
        return recipient
    try:
        return f"{local.lower()}@{ascii_domain(domain).lower()}"
    except InvalidDomain:
        return f"{local.lower()}@{domain.lower()}"
