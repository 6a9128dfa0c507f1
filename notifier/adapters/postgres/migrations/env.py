"""Called by alembic: runs the migrations on the connection that migrate.py opened, under a lock.

A table's lock that is not free is waited for briefly: all statements of the running processes queue
behind such a wait. migrate.py repeats what was undone. Each migration has a transaction of its own:
one that waits must not hold the locks of those before it.
"""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
# Until the connection is closed.
connection.execute(text("SELECT pg_advisory_lock(hashtext('notifier.migrate'))"))
connection.execute(text("SET lock_timeout = '200ms'"))
connection.commit()
context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
