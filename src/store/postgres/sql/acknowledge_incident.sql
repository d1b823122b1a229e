-- Notes who has taken up an open incident, unless somebody has. $1 text, $2 uuid: its key. $3 text: who. $4 timestamptz: now.
UPDATE metertrail.incidents
SET acknowledged_by = $3, acknowledged_at = $4, revision = revision + 1
WHERE tenant_id = $1 AND id = $2 AND state <> 'resolved' AND acknowledged_at IS NULL
