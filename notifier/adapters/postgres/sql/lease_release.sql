-- Leaves leases of this process without a holder.
-- Parameters: $1 this process; of each lease: $2 queue, $3 term, $4 progress (JSON).
-- A lease that has another holder or term is left alone.
WITH mine AS (
    SELECT queue, asked.progress
    FROM unnest($2::text[], $3::integer[], $4::text[]) AS asked (queue, term, progress)
    JOIN leases lease USING (queue)
    WHERE lease.holder = $1 AND lease.term = asked.term
    ORDER BY queue
    FOR NO KEY UPDATE OF lease
)
UPDATE leases lease SET holder = NULL, progress = mine.progress::jsonb
FROM mine WHERE lease.queue = mine.queue
