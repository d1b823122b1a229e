-- The days that have a partition of audit events. Takes no lock.
SELECT to_date(right(class.relname::text, 8), 'YYYYMMDD') AS day
FROM pg_catalog.pg_inherits AS inherits
JOIN pg_catalog.pg_class AS class ON class.oid = inherits.inhrelid
WHERE inherits.inhparent = 'metertrail.audit_events'::regclass
    AND class.relname ~ '^audit_events_[0-9]{8}$'
ORDER BY day
