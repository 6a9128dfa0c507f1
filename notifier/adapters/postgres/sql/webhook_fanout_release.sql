-- Gives back the right of webhook_fanout_take.sql.
-- Parameters: $1 this process.
UPDATE webhook_fanout SET held_until = '-infinity' WHERE holder = $1
