-- What counts against the limits of one tenant in some windows on quarter hours. $1 text: tenant. $2 bigint[], $3 text[],
-- $4 timestamptz[], $5 timestamptz[]: positions of windows and runs of roll-up periods that tile them. $6, $7 timestamptz[]:
-- the windows.
SELECT "position", tokens, api_calls, chat_messages, embeddings, cost_usd, measures
FROM metertrail.quota_usage($1, $2, $3, $4, $5, $6, $7)
