-- The latest epoch.
SELECT number, record, checkpoint, frontier
FROM metertrail.audit_epochs
ORDER BY number DESC
LIMIT 1
