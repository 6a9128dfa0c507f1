-- Stores a tenant, or changes it, unless its name is that of a deleted one (deleted_tenants).
-- Parameters: $1 name, $2 note, $3 senders, $4 locale, $5 the JSON document of topics,
-- $6 rate per second (null: none).
-- Returns: the row, and the JSON document of the settings before (null: it is new); none if it was
-- not stored. All processes are notified.
WITH before AS (SELECT note, senders, locale, topics, rate_per_s FROM tenants WHERE name = $1)
INSERT INTO tenants (name, note, senders, locale, topics, rate_per_s)
SELECT $1, $2, $3::text[], $4, $5::jsonb, $6::float8
WHERE EXISTS (SELECT FROM before) OR NOT EXISTS (SELECT FROM deleted_tenants WHERE name = $1)
ON CONFLICT (name) DO UPDATE SET note = excluded.note, senders = excluded.senders,
    locale = excluded.locale, topics = excluded.topics, rate_per_s = excluded.rate_per_s
RETURNING name, note, senders, locale, topics::text, rate_per_s, created_at,
          (SELECT to_jsonb(before)::text FROM before) AS before,
          pg_notify('notifier_keys', '')
