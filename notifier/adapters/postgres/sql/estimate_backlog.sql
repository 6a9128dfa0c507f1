-- Estimates how many rows wait or are being sent, without counting them.
-- Parameters: none.
-- Returns: one row, `waiting`, from the planner's statistics. They may be minutes old.
SELECT greatest(reltuples, 0)::bigint AS waiting FROM pg_class WHERE oid = 'live'::regclass
