-- Renews leases of this process and reads the leases of all queues.
-- Parameters: $1 this process, $2 all queues; of each lease to renew: $3 queue, $4 term,
-- $5 progress (JSON, null: unchanged).
-- Returns: one row per queue in $2, also for a queue that never had a holder (term and beat 0);
-- `is_renewed` if this statement renewed its lease; `turns` other than 0 that it uses, null: none.
-- A lease that has another holder or term is left alone. The rows are locked in the order of their
-- queues, as in lease_acquire.sql and lease_release.sql.
WITH mine AS (
    SELECT queue, asked.progress
    FROM unnest($3::text[], $4::integer[], $5::text[]) AS asked (queue, term, progress)
    JOIN leases lease USING (queue)
    WHERE lease.holder = $1 AND lease.term = asked.term
    ORDER BY queue
    FOR NO KEY UPDATE OF lease
), renewed AS (
    UPDATE leases lease SET beat = beat + 1, progress = coalesce(mine.progress::jsonb, lease.progress)
    FROM mine WHERE lease.queue = mine.queue
    RETURNING lease.queue, lease.beat
)
SELECT queue, lease.holder, coalesce(lease.term, 0) AS term,
       coalesce(renewed.beat, lease.beat, 0) AS beat,
       coalesce(lease.progress -> 'is_backlogged' = 'true', false) AS is_backlogged,
       renewed.queue IS NOT NULL AS is_renewed, used.turns
FROM unnest($2::text[]) AS known (queue)
LEFT JOIN leases lease USING (queue)
LEFT JOIN renewed USING (queue)
LEFT JOIN (SELECT queue, array_agg(turn ORDER BY turn) AS turns FROM turns GROUP BY queue) used
    USING (queue)
