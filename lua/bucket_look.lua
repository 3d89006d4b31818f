-- Tells people what is remembered of a token bucket, and changes nothing.
--
-- KEYS[1]  the bucket's state
--
-- Returns the server's time (us), and the state in hex, empty where there is none.

return { now_us(), hex(redis.call('GET', KEYS[1])) }
