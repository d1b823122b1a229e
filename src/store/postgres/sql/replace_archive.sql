-- Notes another archive of a dropped day of usage. $1 text: task. $2 bigint: token. $3 date. $4 text: digest of the manifest
-- before. $5 bigint, $6 numeric: what the day has now. $7, $8 text: manifest and its digest. Answers a row if it was noted.
-- Locks: the task's row, shared; the day.
UPDATE metertrail.closed_days
SET events = $5, key_sum = $6, manifest = $7, manifest_sha256 = $8
WHERE table_name = 'usage' AND day = $3 AND manifest_sha256 = $4 AND metertrail.holds_upkeep_run($1, $2)
RETURNING day
