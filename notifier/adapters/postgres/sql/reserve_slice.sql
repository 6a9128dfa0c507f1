-- Reserves the next calls of a provider's schedule. A call reserves nothing while the schedule is
-- reserved for longer than $4 from now. `tat` is the end of the reserved part. A `tat` further
-- than $5 from now was written before the clock was set back or under a slower rate, and does not
-- count; a `factor_at` in the future counts as the same distance in the past. The commit does not
-- wait for the disk: the slots that a crash loses have passed when Postgres is back.
-- Parameters: $1 provider, $2 its configured rate per second, $3 the number of calls, $4 how far
-- ahead the schedule is reserved, $5 how far ahead one reservation can reach at the lowest rate,
-- both in seconds, $6 the growth of the rate's factor per second.
-- Returns: one row, `count` being $3, or 0 if nothing was reserved; `ends_in_s` until the end of
-- the reserved part in seconds, `rate_per_s` after cuts. No row if this call creates the
-- schedule.
-- Repeating it reserves more.
WITH begun AS (
    INSERT INTO provider_rates (provider) VALUES ($1) ON CONFLICT DO NOTHING
), taken AS (
    UPDATE provider_rates SET
        tat = CASE
            WHEN tat BETWEEN clock_timestamp()
                         AND clock_timestamp() + make_interval(secs => $4::float8) THEN tat
            ELSE clock_timestamp()
        END + make_interval(secs => $3::integer / ($2::float8 * least(
            1, factor + $6::float8 * abs(extract(epoch FROM now() - factor_at))
        )::float8))
    WHERE provider = $1 AND (
        tat < clock_timestamp() + make_interval(secs => $4::float8)
        OR tat > clock_timestamp() + make_interval(secs => $5::float8)
    )
    RETURNING $3::integer AS count, tat, factor, factor_at, set_config('synchronous_commit', 'off', true)
), schedule AS (
    SELECT count, tat, factor, factor_at FROM taken
    UNION ALL
    SELECT 0, tat, factor, factor_at FROM provider_rates
    WHERE provider = $1 AND NOT EXISTS (SELECT FROM taken)
)
SELECT
    count,
    extract(epoch FROM tat - clock_timestamp())::float8 AS ends_in_s,
    $2::float8 * least(
        1, factor + $6::float8 * abs(extract(epoch FROM now() - factor_at))
    )::float8 AS rate_per_s
FROM schedule
