-- Reads unread entries of an inbox, newest first.
-- Parameters: $1 tenant, $2 mode, $3 user, $4 and $5 instant and id before which it begins, $6 the
-- maximum of rows, $7 the number of bytes after which it stops.
-- Returns: one row per entry; `candidates` is how many there were without the limit in bytes.
SELECT id, subject, body, data, created_at, read_at, expires_at, candidates
FROM (
    SELECT *, count(*) OVER () AS candidates,
           sum(octet_length(body) + coalesce(octet_length(data), 0)) OVER (
               ORDER BY created_at DESC, id DESC
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM (
        SELECT id, subject, body, data, created_at, read_at, expires_at FROM inbox_entries
        WHERE tenant = $1 AND mode = $2 AND user_id = $3 AND (created_at, id) < ($4, $5)
          AND expires_at > now() AND read_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT $6
    ) newest
) measured
WHERE coalesce(bytes_before, 0) < $7
ORDER BY created_at DESC, id DESC
