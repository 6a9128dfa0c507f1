-- Whether there is a table of revisions, and whether this role may read it.
SELECT to_regclass('alembic_version') IS NOT NULL AS is_there,
       coalesce(has_table_privilege(to_regclass('alembic_version'), 'SELECT'), false) AS may_read
