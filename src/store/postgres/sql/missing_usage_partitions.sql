-- Which UTC days have no partition of events yet. $1 date[]. Takes no lock.
SELECT day
FROM unnest($1::date[]) AS day
WHERE to_regclass('metertrail.tenant_usage_realtime_' || to_char(day, 'YYYYMMDD')) IS NULL
