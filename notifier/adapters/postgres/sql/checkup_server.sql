-- What a server says of itself and of this session. What other programs hold is counted by name: a
-- role that may not read all of pg_stat_activity sees that much of every session.
SELECT
    current_setting('server_version_num')::integer / 10000 AS major,
    current_setting('server_version') AS version,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS is_read_only,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_user AS role,
    least(
        current_setting('max_connections')::integer
            - current_setting('superuser_reserved_connections')::integer
            - coalesce(current_setting('reserved_connections', true)::integer, 0),
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0),
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0)
    ) AS connections,
    (SELECT count(*)::integer FROM pg_stat_activity
     WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND application_name <> 'notifier') AS others
