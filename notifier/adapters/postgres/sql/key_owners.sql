-- Finds the notifications that idempotency keys belong to. It runs after insert_keyed.sql in a
-- statement of its own: that one does not see the keys of statements that it has waited for.
-- Parameters: $1 digests of keys without duplicates.
-- Returns: one row per key that is stored; `reason` of a suppressed notification.
SELECT DISTINCT ON (key) key, id, body, status::text,
       (SELECT reason FROM ends e WHERE e.id = k.id AND k.status = 'suppressed') AS reason
FROM idempotency_keys k WHERE key = ANY ($1::uuid[])
ORDER BY key, day DESC
