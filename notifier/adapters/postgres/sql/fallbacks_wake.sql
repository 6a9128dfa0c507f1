-- Lets fallbacks be looked at now that wait for a receipt of these notifications.
-- Parameters: $1 ids, $2 for how many seconds a process holds a fallback.
-- Repeating it changes nothing. One that a process holds, or looks at as soon, is left alone.
UPDATE fallbacks SET look_at = now()
WHERE id = ANY (ARRAY(SELECT id FROM fallbacks
                      WHERE id = ANY ($1::uuid[]) AND look_at > now() + $2 * interval '1 second'
                      ORDER BY id FOR UPDATE SKIP LOCKED))
