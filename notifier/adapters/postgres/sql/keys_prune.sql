-- Removes keys that expired long ago, and what is left of their rates.
-- Parameters: $1 for how many days after its end a key is kept.
-- Returns: one row per key that was removed.
WITH gone AS (
    DELETE FROM keys WHERE expires_at < now() - make_interval(days => $1) RETURNING id
), unused AS (
    DELETE FROM key_rates WHERE key IN (SELECT id FROM gone)
)
SELECT id FROM gone
