-- A part of insert.sql and insert_keyed.sql: notifications that may not be sent. They have no class,
-- so that they never wait, but an end.
-- Parameters: $1 ids, $2 queues, $3 reasons.
, suppressed AS (
    INSERT INTO ends (id, claim, status, queue, reason, tries, first_at, at)
    SELECT id, 0, 'suppressed', queue, reason, 0, (SELECT now FROM clock), (SELECT now FROM clock)
    FROM unnest($1::uuid[], $2::text[], $3::text[]) AS t (id, queue, reason) JOIN stored USING (id)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, queue, reason
)
