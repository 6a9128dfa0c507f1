"""Documents of templates, and versions that were put into the database without the API's checks."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import msgspec

from notifier.delivery.templates import TemplatedContent
from tests.hostile_templates import VARIABLES


def email_template(**parts: object) -> dict[str, object]:
    """Return a document with one text: an email in English, whose subject is S unless given."""
    return {"default_locale": "en", "locales": {"en": {"email": {"subject": "S", **parts}}}}


async def store_template(
    connection: asyncpg.Connection[asyncpg.Record], document: object
) -> TemplatedContent:
    """Put a version into the database itself; return the content that names it."""
    id_ = uuid4()
    await connection.execute(
        """INSERT INTO templates (id, tenant, name, version, channels, document, actor)
           SELECT $1, '', 'stored', count(*) + 1, '{email}', $2, 'test' FROM templates""",
        id_,
        msgspec.json.encode(document),
    )
    return TemplatedContent(
        template="stored@1",
        locale="en",
        template_id=id_,
        template_channel="email",
        variables=msgspec.Raw(msgspec.json.encode(VARIABLES)),
    )
