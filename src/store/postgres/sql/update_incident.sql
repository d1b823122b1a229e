-- Writes an incident anew, if it is open and of the expected revision. $1 text, $2 uuid: its key. $3 bigint: the expected
-- revision. $4 text: the state. $5, $6 numeric: value and threshold. $7 to $11 timestamptz: fired, calm since, observed, resolved,
-- notified. $12 bigint: the revision.
-- Guarantee: of several callers at once one writes it; its row says so.
UPDATE metertrail.incidents
SET state = $4, value = $5, threshold = $6, fired_at = $7, calm_since = $8, observed_at = $9, resolved_at = $10,
    notified_at = $11, revision = $12
WHERE tenant_id = $1 AND id = $2 AND state <> 'resolved' AND revision = $3
RETURNING true
