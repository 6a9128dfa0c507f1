"""Migrations are plain SQL: alembic keeps their order, the text beside a revision does the work."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_sql_beside(revision_file: str) -> None:
    """Run the .sql file of the same name, whole, in the migration's transaction."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.dbapi_connection
    if connection is None:
        msg = "the migration's connection is gone"
        raise RuntimeError(msg)
    # A prepared statement holds one command; asyncpg's execute() without arguments takes a script.
    connection.run_async(lambda driver: driver.execute(script))
