-- The days that have a partition of usage events. Takes no lock.
SELECT to_date(right(class.relname::text, 8), 'YYYYMMDD') AS day
FROM pg_catalog.pg_inherits AS inherits
JOIN pg_catalog.pg_class AS class ON class.oid = inherits.inhrelid
WHERE inherits.inhparent = 'metertrail.tenant_usage_realtime'::regclass
    AND class.relname ~ '^tenant_usage_realtime_[0-9]{8}$'
ORDER BY day
