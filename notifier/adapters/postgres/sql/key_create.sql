-- Stores a key, unless its tenant is unknown or has the maximum of keys of its mode that hold.
-- Parameters: $1 id, $2 digest of the secret, $3 tenant (null: a deployment key), $4 mode, $5 scopes,
-- $6 rate per second (null: no limit), $7 note, $8 who made it, $9 when it expires (null: never),
-- $10 the maximum of keys.
-- Returns: the row, if it was stored; all processes are notified.
WITH made AS (
    INSERT INTO keys (id, digest, tenant, mode, scopes, rate_per_s, note, created_by, expires_at)
    SELECT $1, $2::bytea, $3::text, $4, $5::text[], $6::double precision, $7, $8, $9::timestamptz
    WHERE ($3 IS NULL OR $3 = '' OR EXISTS (SELECT FROM tenants WHERE name = $3 FOR KEY SHARE))
      AND (SELECT count(*) FROM keys WHERE tenant IS NOT DISTINCT FROM $3 AND mode = $4
                                        AND (expires_at IS NULL OR expires_at > now())) < $10
    RETURNING *
)
SELECT made.*, pg_notify('notifier_keys', '') FROM made
