-- Stores a tenant, or changes it, unless its name is that of a deleted one (deleted_tenants).
-- Parameters: $1 name, $2 note, $3 senders.
-- Returns: the row, and the JSON document of the settings before (null: it is new); none if it was
-- not stored. All processes are notified.
WITH before AS (SELECT note, senders FROM tenants WHERE name = $1)
INSERT INTO tenants (name, note, senders)
SELECT $1, $2, $3::text[]
WHERE EXISTS (SELECT FROM before) OR NOT EXISTS (SELECT FROM deleted_tenants WHERE name = $1)
ON CONFLICT (name) DO UPDATE SET note = excluded.note, senders = excluded.senders
RETURNING name, note, senders, created_at, (SELECT to_jsonb(before)::text FROM before) AS before,
          pg_notify('notifier_keys', '')
