-- What waits for the relay. What is published is in notifications_published, and there are few.
-- In this order, for readers wait from the drop to the end.
CREATE INDEX notifications_due_expires ON notifications (expires_at) WHERE due_at IS NOT NULL;
DROP INDEX notifications_waiting;
ALTER INDEX notifications_due_expires RENAME TO notifications_waiting;

-- Drops one day if all its notifications are final: 'dropped', 'kept' (some are not) or 'absent'.
-- Refuses days that are not yet over. Gives up after 200 ms of waiting for a lock (55P03).
CREATE OR REPLACE FUNCTION drop_day(day date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    suffix text := '_' || to_char(day, 'YYYYMMDD');
    alive boolean;
    probe text := format(
        'SELECT EXISTS (SELECT FROM %1$I WHERE due_at IS NOT NULL)
             OR EXISTS (SELECT FROM %1$I WHERE status = ''queued'' AND due_at IS NULL)
             OR EXISTS (SELECT FROM %1$I WHERE status = ''sending'')', 'notifications' || suffix);
BEGIN
    IF day >= (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION '% is not over yet', day USING ERRCODE = '22023';
    END IF;
    IF to_regclass('notifications' || suffix) IS NULL THEN
        RETURN 'absent';
    END IF;
    EXECUTE probe INTO alive;
    IF alive THEN
        RETURN 'kept';
    END IF;
    -- The parents first, as every other statement does: the other way round is a deadlock.
    LOCK TABLE ONLY notifications, ONLY attempts, ONLY failures IN ACCESS EXCLUSIVE MODE;
    EXECUTE probe INTO alive;
    IF alive THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('DROP TABLE %I', 'notifications' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'attempts' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'failures' || suffix);
    RETURN 'dropped';
END
$$;
