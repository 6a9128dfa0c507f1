-- Reads all keys, also expired ones.
-- Parameters: none.
-- Returns: one row per key, the oldest first; `now` is Postgres's time.
SELECT id, digest, tenant, mode, scopes, rate_per_s, note, created_by, created_at, expires_at,
       last_used_at, now() AS now
FROM keys ORDER BY created_at, id
