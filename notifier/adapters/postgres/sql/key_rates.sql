-- Takes tokens of keys. A bucket holds greatest(1, rate) tokens; `tat` is when it would be empty: a
-- time in the past is a full bucket. If it has `first` tokens, or is full, it gives those and up to
-- `wanted` if there are more; otherwise none. A `tat` that is further ahead than a full bucket and the
-- largest batch is from before the clock was set back: the bucket is full, too.
-- Parameters: $1 keys without duplicates, $2 rates per second, $3 `first` and $4 `wanted` of each,
-- $5 the cost of the largest batch.
-- Returns: one row per key that has a row: `granted`, and what is `left` (below 0: a debt).
-- Repeating it takes more.
WITH asked AS (
    SELECT r.key, t.rate, t.first, t.wanted, greatest(1, t.rate) AS size,
           extract(epoch FROM r.tat - clock_timestamp())::float8 AS ahead_s
    FROM unnest($1::text[], $2::float8[], $3::float8[], $4::float8[]) AS t (key, rate, first, wanted)
    JOIN key_rates r ON r.key = t.key
    ORDER BY r.key FOR UPDATE OF r
), used AS (
    SELECT *, CASE WHEN ahead_s BETWEEN 0 AND (size + $5::float8) / rate THEN ahead_s ELSE 0 END
              AS used_s
    FROM asked
), known AS (
    SELECT *, size - used_s * rate AS tokens FROM used
), given AS (
    SELECT key, rate, used_s, tokens,
           CASE WHEN tokens + 1e-6 >= least(first, size)
                THEN greatest(first, least(wanted, floor(tokens))) ELSE 0 END AS granted
    FROM known
), taken AS (
    UPDATE key_rates r
    SET tat = CASE WHEN g.used_s > 0 THEN greatest(r.tat, clock_timestamp())
                   ELSE clock_timestamp() END + make_interval(secs => g.granted / g.rate)
    FROM given g WHERE r.key = g.key AND g.granted > 0
)
SELECT key, granted, tokens - granted AS left FROM given
