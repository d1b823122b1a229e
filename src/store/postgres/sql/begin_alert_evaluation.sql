-- Begins the next turn of a scope, unless its turn was begun less than an interval ago. $1 text: the scope. $2 timestamptz: now.
-- $3 timestamptz: an interval before. $4 timestamptz: an interval later.
-- Guarantee: of several callers at once one begins. Gives its generation.
-- Locks: the scope's row.
INSERT INTO metertrail.alert_evaluations AS turn (scope, generation, evaluated_at)
VALUES ($1, 1, $2)
ON CONFLICT (scope) DO UPDATE SET
    generation = turn.generation + 1,
    evaluated_at = excluded.evaluated_at
WHERE turn.evaluated_at <= $3 OR turn.evaluated_at > $4
RETURNING generation
