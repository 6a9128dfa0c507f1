-- Makes this process the holder of leases that nobody has renewed since they were read.
-- Parameters: $1 this process; of each lease: $2 queue, $3 term and $4 beat as read.
-- Returns: queue and progress (JSON) of each lease acquired; its term is one more than read.
-- Repeating it acquires nothing more.
INSERT INTO leases AS lease (queue, holder, term, beat)
SELECT queue, $1, term + 1, beat + 1
FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS seen (queue, term, beat)
ORDER BY queue
ON CONFLICT (queue) DO UPDATE
SET holder = excluded.holder, term = excluded.term, beat = excluded.beat
WHERE lease.term = excluded.term - 1 AND lease.beat = excluded.beat - 1
RETURNING queue, progress::text AS progress
