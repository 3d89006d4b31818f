-- Tells people what is noted of a job.
--
-- KEYS[1]  the note
--
-- Returns it, or nothing, and how long it is kept (ms).

return { redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }
