-- Settings of one transaction.
-- $1 text: the longest that a statement, or its wait for a lock, may take, in milliseconds.
-- Guarantee: what is acknowledged is on disk, even if the role commits asynchronously by default. Statements are too short
-- for the just-in-time compiler, which costs more than it saves. All settings are local to the transaction, so a pooler
-- never hands them to another client.
SELECT
    set_config('statement_timeout', $1, true),
    set_config('lock_timeout', $1, true),
    set_config('jit', 'off', true),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
        true)
