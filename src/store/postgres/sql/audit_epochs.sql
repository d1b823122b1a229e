-- Epochs in order. $1 bigint: from this number on. $2 bigint: how many at most.
SELECT number, record, checkpoint, frontier
FROM metertrail.audit_epochs
WHERE number >= $1
ORDER BY number
LIMIT $2
