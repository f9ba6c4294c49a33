-- Whose quota an exchange spent, and what each answer said of quotas. Rows of version 1 do not know.

ALTER TABLE exchange ADD COLUMN credential TEXT;       -- digits of a salted hash, as in scopes; NULL for none

-- Where an answer tells of several quotas: the one of which the smallest share is left.
ALTER TABLE attempt ADD COLUMN bucket TEXT;            -- which the answer named
ALTER TABLE attempt ADD COLUMN quota_name TEXT;        -- what tells it from others of the answer: minute, tokens …
ALTER TABLE attempt ADD COLUMN quota_limit INTEGER;    -- units in a window
ALTER TABLE attempt ADD COLUMN quota_remaining INTEGER;  -- of them, what was left
ALTER TABLE attempt ADD COLUMN quota_reset_ms REAL;    -- until it was renewed, from the answer on
ALTER TABLE attempt ADD COLUMN quota_window_ms REAL;   -- length of the window, where it was told
