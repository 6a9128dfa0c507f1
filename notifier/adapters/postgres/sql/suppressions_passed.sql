-- Notes that the waiting notifications of suppressed recipients were looked for: they are looked for
-- again after 10 s and after 60 s, because notifications may have been stored at the same time; and
-- then each minute as long as one that was found could not be ended.
-- Parameters: $1 ids, $2 numbers of the passes, $3 whether a notification could not be ended.
-- Repeating it changes nothing, except for the last number.
UPDATE suppressions s SET
    pass = least(s.pass + 1, 3),
    pass_at = CASE WHEN s.pass = 0 THEN now() + interval '10 s'
                   WHEN s.pass = 1 THEN now() + interval '50 s'
                   WHEN t.is_left THEN now() + interval '60 s' END
FROM unnest($1::uuid[], $2::smallint[], $3::boolean[]) AS t (id, pass, is_left)
WHERE s.id = t.id AND s.pass = t.pass
