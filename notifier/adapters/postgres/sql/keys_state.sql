-- Tells whether any key or tenant has changed, without reading them into a process.
-- Parameters: none.
-- Returns: one row: `state`, a text that is another one after each change that keys_read.sql and
-- tenants_read.sql show (but for `last_used_at`), and `now`, Postgres's time.
SELECT concat_ws(' ',
           (SELECT concat(count(*), ' ', sum(hash_record_extended(
                       (id, digest, tenant, mode, scopes, rate_per_s, note, created_by, created_at,
                        expires_at), 0)::numeric)) FROM keys),
           (SELECT concat(count(*), ' ', sum(hash_record_extended(t, 0)::numeric)) FROM tenants t)
       ) AS state, now() AS now
