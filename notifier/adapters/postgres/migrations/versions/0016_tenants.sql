-- Names of deleted tenants of which something may still be stored: no new tenant may have them.
CREATE TABLE deleted_tenants (
    name text NOT NULL PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now()
);

-- A trigger, because the version before deletes tenants, too, and does not know the table.
CREATE FUNCTION keep_tenant_name() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO deleted_tenants (name) VALUES (OLD.name)
    ON CONFLICT (name) DO UPDATE SET deleted_at = excluded.deleted_at;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_tenant_name AFTER DELETE ON tenants
    FOR EACH ROW WHEN (OLD.name <> '') EXECUTE FUNCTION keep_tenant_name();

INSERT INTO deleted_tenants (name, deleted_at)
SELECT substr(target, length('tenant:') + 1), max(at) FROM audit
WHERE action = 'tenant.deleted'
  AND substr(target, length('tenant:') + 1) NOT IN (SELECT name FROM tenants)
GROUP BY target;

-- The default tenant has settings, too.
INSERT INTO tenants (name) VALUES ('') ON CONFLICT (name) DO NOTHING;

-- tenants:
--   senders  what the `from` of its emails and text messages may be
--   locale   that of its submits with a template that name none; null: that of the template
--   topics   the titles of topics by their names
-- blobs:
--   senders  the addresses in From of a whole mail; null: not known
-- The version before works with these columns, which it does not know. As in 0008, each try waits
-- for at most 200 ms.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE tenants ADD COLUMN senders text[] NOT NULL DEFAULT '{}',
                                ADD COLUMN locale text,
                                ADD COLUMN topics jsonb NOT NULL DEFAULT '{}';
            ALTER TABLE blobs ADD COLUMN senders text[];
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 300 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.2);
        END;
    END LOOP;
END
$$;
SET LOCAL lock_timeout = 0;
