"""Migrations are SQL scripts: alembic knows their order, the .sql files do the work."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_sql_script(revision_file: str) -> None:
    """Run the .sql file next to a revision's .py file in the transaction of the migration."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind().connection.dbapi_connection
    if connection is None:
        raise RuntimeError("the connection of the migration is closed")
    # A prepared statement may contain one command only; execute() without arguments takes a script.
    connection.run_async(lambda driver: driver.execute(script))
