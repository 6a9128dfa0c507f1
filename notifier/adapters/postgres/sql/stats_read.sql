-- Reads roll-ups, the oldest first: whole steps, until so many rows are read.
-- Parameters: $1 step, $2 not before, $3 before, $4 tenant (null: all), $5 whether of tests, $6 whether by
-- queue, $7 by tag, $8 by provider, $9 how many rows are read at most (of one step: all of them).
-- Returns: one row per step and combination, in their order; `next_at` of each row is where the next
-- page begins (null: there is none).
WITH first AS (
    SELECT at FROM stats
    WHERE step = $1 AND at >= $2 AND at < $3 AND is_test = $5 AND ($4::text IS NULL OR tenant = $4)
    ORDER BY at LIMIT $9 + 1
), bound AS (
    -- The step in which the limit is reached begins the next page. If it is the first one of this page,
    -- the page has all of it, and the next one begins with the step after it.
    SELECT CASE WHEN max(at) > min(at) THEN max(at)
                ELSE (SELECT at FROM stats
                      WHERE step = $1 AND at > (SELECT max(at) FROM first) AND at < $3
                        AND is_test = $5 AND ($4::text IS NULL OR tenant = $4)
                      ORDER BY at LIMIT 1) END AS next_at
    FROM first HAVING count(*) > $9
), chosen AS (
    SELECT at, CASE WHEN $6::boolean THEN queue ELSE '' END AS queue,
           CASE WHEN $7::boolean THEN tag ELSE '' END AS tag,
           CASE WHEN $8::boolean THEN provider ELSE '' END AS provider,
           accepted, sent, delivered, undelivered, failed, expired, cancelled, suppressed, waits,
           calls
    FROM stats
    WHERE step = $1 AND at >= $2 AND at < coalesce((SELECT next_at FROM bound), $3)
      AND is_test = $5 AND ($4::text IS NULL OR tenant = $4)
), buckets AS (
    SELECT at, queue, tag, provider, bucket, coalesce(sum(waited), 0)::bigint AS waited,
           coalesce(sum(called), 0)::bigint AS called
    FROM chosen CROSS JOIN LATERAL unnest(waits, calls) WITH ORDINALITY AS t (waited, called, bucket)
    GROUP BY at, queue, tag, provider, bucket
), histograms AS (
    SELECT at, queue, tag, provider, array_agg(waited ORDER BY bucket) AS waits,
           array_agg(called ORDER BY bucket) AS calls
    FROM buckets GROUP BY at, queue, tag, provider
), totals AS (
    SELECT at, queue, tag, provider, sum(accepted)::bigint AS accepted, sum(sent)::bigint AS sent,
           sum(delivered)::bigint AS delivered, sum(undelivered)::bigint AS undelivered,
           sum(failed)::bigint AS failed, sum(expired)::bigint AS expired,
           sum(cancelled)::bigint AS cancelled, sum(suppressed)::bigint AS suppressed
    FROM chosen GROUP BY at, queue, tag, provider
)
SELECT t.*, coalesce(h.waits, '{}') AS waits, coalesce(h.calls, '{}') AS calls,
       (SELECT next_at FROM bound) AS next_at
FROM totals t LEFT JOIN histograms h USING (at, queue, tag, provider)
ORDER BY at, queue, tag, provider
