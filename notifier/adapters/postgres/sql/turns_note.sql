-- Notes turns of queues, before the first rows are stored in them.
-- Parameters: of each: $1 queue, $2 turn.
-- Returns: nothing.
-- Repeating it changes nothing.
INSERT INTO turns (queue, turn)
SELECT queue, turn FROM unnest($1::text[], $2::smallint[]) AS t (queue, turn)
ORDER BY queue, turn
ON CONFLICT DO NOTHING
