-- All breakers, as this process ($1) sees them.
SELECT provider, state::text AS state, reason, openings,
       extract(epoch FROM now() - changed_at)::float8 AS age_s,
       extract(epoch FROM probe_at - now())::float8 AS probe_in_s,
       state = 'half_open' AND (held_by = $1) IS TRUE AS is_mine
FROM breakers ORDER BY provider
