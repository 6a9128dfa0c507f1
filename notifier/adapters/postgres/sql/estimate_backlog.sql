-- Estimates how many rows wait or are being sent, without counting them. Calls of webhooks are left
-- out: a dead webhook must not keep others from submitting.
-- Parameters: none.
-- Returns: one row, `waiting`, from the planner's statistics and the last count of the calls. They
-- may be minutes old.
SELECT greatest(reltuples::bigint - coalesce((SELECT waiting FROM webhook_fanout WHERE id = 1), 0), 0) AS waiting
FROM pg_class WHERE oid = 'live'::regclass
