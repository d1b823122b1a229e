-- Notes what became of an attempt, if the claim still holds it. $1 text, $2 uuid, $3 text, $4 text: the key. $5 uuid: the claim.
-- $6 text: waiting, done or dead. $7 timestamptz: due again. $8 boolean: whether it arrived. $9 text: why not. $10 timestamptz:
-- now.
-- Of an incident that is over nobody is reminded. One that arrived begins to count its attempts anew.
UPDATE metertrail.alert_notifications AS notification
SET status = CASE
        WHEN $8 AND EXISTS (
            SELECT
            FROM metertrail.incidents
            WHERE incidents.tenant_id = notification.tenant_id
                AND incidents.id = notification.incident_id
                AND incidents.state = 'resolved') THEN 'done'
        ELSE $6
    END,
    due_at = $7,
    was_delivered = was_delivered OR $8,
    attempts = CASE WHEN $8 THEN 0 ELSE attempts END,
    error = $9,
    tried_at = $10,
    claim_id = NULL,
    claimed_until = NULL
WHERE tenant_id = $1 AND incident_id = $2 AND kind = $3 AND sink = $4 AND claim_id = $5
RETURNING true
