-- Stores the results of runs. A schedule moves on only if it still stands at the instant of its run: a
-- person may have changed or paused it, or another process has run it after this one was slow. The
-- notification is noted in any case.
-- Parameters, one value per run: $1 ids, $2 instants, $3 next instants (null: there is no more; the
-- instant itself: it is tried again), $4 ids of notifications (null: none was submitted), $5
-- problems (null: it was not refused), $6 after how many seconds it is tried again, $7 whether it may
-- have been submitted all the same.
-- Returns: the schedules that still stood at the instant.
-- Repeating it changes nothing.
WITH result AS (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::uuid[], $5::text[],
                         $6::float8[], $7::boolean[])
        AS t (id, at, next_at, notification, problem, wait_s, may_be_stored)
), found AS (
    SELECT r.*, coalesce(s.next_at = r.at, false) AS stands
    FROM schedules s JOIN result r USING (id)
    ORDER BY id FOR UPDATE OF s
), settled AS (
    UPDATE schedules s SET
        next_at = CASE WHEN stands THEN f.next_at ELSE s.next_at END,
        held_until = CASE WHEN NOT stands THEN s.held_until
                          WHEN f.next_at = f.at THEN now() + f.wait_s * interval '1 second' END,
        begun_at = CASE WHEN NOT stands OR may_be_stored THEN s.begun_at END,
        last_at = CASE WHEN f.notification IS NULL THEN s.last_at ELSE f.at END,
        last_notification = coalesce(f.notification, s.last_notification),
        last_problem = CASE WHEN f.notification IS NULL THEN coalesce(f.problem, s.last_problem) END
    FROM found f
    WHERE s.id = f.id AND (stands OR f.notification IS NOT NULL AND (s.last_at < f.at) IS NOT FALSE)
    RETURNING s.id, stands
)
SELECT id FROM settled WHERE stands
