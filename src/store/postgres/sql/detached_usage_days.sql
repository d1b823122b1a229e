-- Which UTC days have no partition of events, or one that was detached or is being so, or have lost the events of one tenant.
-- $1 date[]. $2 text: the tenant. Takes no lock.
SELECT day
FROM unnest($1::date[]) AS day
WHERE NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_inherits
        WHERE inhparent = 'metertrail.tenant_usage_realtime'::regclass
            AND NOT inhdetachpending
            AND inhrelid = to_regclass('metertrail.tenant_usage_realtime_' || to_char(day, 'YYYYMMDD')))
    OR day < (SELECT before_day FROM metertrail.usage_pruned WHERE tenant_id = $2)
