"""The arithmetic of the limits: (state, now, request) -> decision. No clock, no I/O, no sleeping.

A rule changes the state it is given only where it grants something. All times are microseconds on the
backend's clock. The same rules stand in Lua under ``lua/``; one property test holds the two together.
"""
