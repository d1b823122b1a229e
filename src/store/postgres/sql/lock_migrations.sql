-- Puts those who migrate at once in a row, until the end of the transaction. Transaction-scoped, so safe behind a pooler.
SELECT pg_advisory_xact_lock(7307497709806154097)
