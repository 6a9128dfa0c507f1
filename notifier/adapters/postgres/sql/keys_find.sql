-- Reads a few keys, also expired ones.
-- Parameters: $1 ids.
-- Returns: one row per key that there is, as in keys_read.sql.
SELECT id, digest, tenant, mode, scopes, rate_per_s, note, created_by, created_at, expires_at,
       last_used_at
FROM keys WHERE id = ANY ($1::text[])
