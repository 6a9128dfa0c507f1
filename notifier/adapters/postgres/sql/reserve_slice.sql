-- The next $3 calls of the schedule of provider $1, configured to $2 a second; or, given away 150 ms
-- ahead, none and until when; no row if the schedule is begun with this. A tat further ahead than
-- the longest piece of this rate at its lowest can reach was left by a clock put back or by a slower
-- configuration; a factor_at ahead is as good as long ago. The commit waits for no disk: what a crash loses is past when Postgres is up again.
WITH begun AS (
    INSERT INTO provider_rates (provider) VALUES ($1) ON CONFLICT DO NOTHING
), taken AS (
    UPDATE provider_rates SET
        tat = CASE
            WHEN tat BETWEEN clock_timestamp() AND clock_timestamp() + interval '150 ms' THEN tat
            ELSE clock_timestamp()
        END + make_interval(secs => $3::integer / ($2::float8 * least(
            1, factor + 0.05 * abs(extract(epoch FROM now() - factor_at))
        )::float8))
    WHERE provider = $1 AND (
        tat < clock_timestamp() + interval '150 ms'
        OR tat > clock_timestamp() + make_interval(secs => 1.15 + 20 / $2::float8)
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
        1, factor + 0.05 * abs(extract(epoch FROM now() - factor_at))
    )::float8 AS rate_per_s
FROM schedule
