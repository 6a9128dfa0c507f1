-- Reads what an explanation needs of a notification, beside what read_notifications.sql returns.
-- Parameters: $1 its id.
-- Returns: one row; `class` and what follows is null if it does not wait. `content` is null unless it
-- may name a time zone; `parked_kind` and `parked_name` are the pause that parked it, and `number` to
-- `code` are of its newest attempt.
SELECT now() AS now, l.class, l.turn, l.claim, l.due_at, n.content, p.kind AS parked_kind,
       p.name AS parked_name, a.claim AS number, a.provider, a.outcome, a.code
FROM (SELECT) AS one
LEFT JOIN LATERAL (SELECT class, turn, claim, due_at FROM live WHERE id = $1 LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT content FROM notifications
                   WHERE id = $1 AND position('"time_zone"'::bytea IN content) > 0
                   LIMIT 1) n ON l.class IS NOT NULL
LEFT JOIN LATERAL (SELECT kind, name FROM parked WHERE id = $1 LIMIT 1) p ON l.class IS NOT NULL
LEFT JOIN LATERAL (SELECT claim, provider, outcome, code FROM attempts WHERE id = $1
                   ORDER BY claim DESC LIMIT 1) a ON l.class IS NOT NULL
