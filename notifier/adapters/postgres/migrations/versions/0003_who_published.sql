--   published_by  the process whose relay last took it
ALTER TABLE notifications ADD COLUMN published_by uuid;
