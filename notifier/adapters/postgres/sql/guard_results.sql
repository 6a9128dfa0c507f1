-- Counts the results of the tags that are not paused, over the last minutes, or since the minute after
-- the guard judged them. Notifications of test keys do not count.
-- Parameters: $1 the window, $2 the least number of results, $3 for how long it is known that a tag was
-- judged, $4 the tag that stands for others, $5 the step of the minutes.
-- Returns: one row per tag with so many results.
SELECT s.tag, sum(s.sent)::bigint AS sent, sum(s.refused)::bigint AS refused,
       sum(s.undelivered)::bigint AS undelivered, j.share AS before
FROM stats s
LEFT JOIN judged_tags j ON j.tag = s.tag AND j.at > now() - $3::interval
WHERE s.step = $5 AND s.at > now() - $1::interval AND NOT s.is_test AND s.tag NOT IN ('', $4)
  AND (j.at IS NULL OR s.at > j.at)
  AND NOT EXISTS (SELECT FROM holds h
                  WHERE h.kind = 'tag' AND h.name = s.tag AND (h.until IS NULL OR h.until > now()))
GROUP BY s.tag, j.share
HAVING sum(s.sent + s.refused) >= $2
ORDER BY s.tag
