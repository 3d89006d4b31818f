"""Where the state of limiters lives, and one request against it, atomically: memory, or Redis."""
