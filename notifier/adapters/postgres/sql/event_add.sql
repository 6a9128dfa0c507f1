-- Writes events that are not of notifications, in the transaction of the change that they tell of.
-- Parameters: $1 type, $2 the tenant (null: of the deployment), $3 the mode, $4 ids of what they
-- concern, $5 a JSON document for each.
-- (While the table has no partition of the day, no event is written.)
INSERT INTO event_batches (day, type, tenant, mode, ids, documents)
SELECT (now() AT TIME ZONE 'UTC')::date, $1, $2, $3, $4::uuid[], $5::text[]
WHERE to_regclass('event_batches_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
