-- Which UTC days have no partition of audit events yet. $1 date[]. Takes no lock.
SELECT day
FROM unnest($1::date[]) AS day
WHERE to_regclass('metertrail.audit_events_' || to_char(day, 'YYYYMMDD')) IS NULL
