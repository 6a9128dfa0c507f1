-- The last part of every statement that ends or changes notifications: writes their events, one row
-- for all that have the same type and reason. The part before it has these notifications as
-- `event` (id, claim, status, reason, tries, queue).
-- (Nothing here can raise: while the table has no partition of the day, no event is written.)
, announced AS (
    INSERT INTO event_batches (day, type, reason, ids, claims, tries)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'notification.' || status, reason, array_agg(id),
           array_agg(claim), array_agg(tries)
    FROM event
    WHERE queue NOT LIKE 'webhook.%' AND queue NOT LIKE 'inbox.%'
      AND to_regclass('event_batches_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
    GROUP BY status, reason
)
