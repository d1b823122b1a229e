-- Keeps an epoch, if its number is the next one. Answers a row if it was kept.
-- $1 bigint: number. $2 bytea: record. $3 text: checkpoint. $4 bytea: frontier.
-- Locks: the number, until the end of the transaction: of two sealers at once the second waits here.
INSERT INTO metertrail.audit_epochs (number, record, checkpoint, frontier)
SELECT $1, $2, $3, $4
WHERE $1 = (SELECT coalesce(max(number) + 1, 0) FROM metertrail.audit_epochs)
ON CONFLICT (number) DO NOTHING
RETURNING number
