-- Lets the oldest calls beyond a maximum that wait for one webhook expire: the sweeper ends them.
-- Parameters: $1 the queue, $2 the maximum, $3 how many expire at most, $4 how many may wait in all:
-- with many webhooks fewer may wait for each.
-- Returns: one row per call.
-- Repeating it does so with the next ones, if there are more.
WITH waiting AS MATERIALIZED (
    SELECT l.id, n.recipient,
           row_number() OVER (PARTITION BY n.recipient ORDER BY l.id DESC) AS place
    FROM live l JOIN notifications n USING (id)
    WHERE n.id >= (SELECT id FROM live ORDER BY id LIMIT 1) AND l.queue = $1 AND l.turn >= 0 AND l.expires_at > now()
      AND l.claimed_by = '00000000-0000-0000-0000-000000000000'
), surplus AS (
    SELECT id FROM waiting
    WHERE place > least($2, $4 / (SELECT greatest(count(*), 1) FROM waiting WHERE place = 1))
    ORDER BY id LIMIT $3
), locked AS (
    SELECT id FROM live
    WHERE id = ANY (ARRAY(SELECT id FROM surplus))
      AND claimed_by = '00000000-0000-0000-0000-000000000000'
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE live SET expires_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM locked))
  AND claimed_by = '00000000-0000-0000-0000-000000000000'
RETURNING id
