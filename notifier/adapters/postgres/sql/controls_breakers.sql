-- Reads all breakers.
-- Parameters: $1 this process's id, which decides `is_mine`.
-- Returns: one row per breaker; `age_s` since its last change and `probe_in_s` until its next
-- probe, in seconds.
SELECT provider, state::text AS state, reason, code, openings, changed_at AS since_at, probe_at,
       extract(epoch FROM now() - changed_at)::float8 AS age_s,
       extract(epoch FROM probe_at - now())::float8 AS probe_in_s,
       state = 'half_open' AND (held_by = $1) IS TRUE AS is_mine
FROM breakers ORDER BY provider
