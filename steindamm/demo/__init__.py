"""``steindamm demo``: real workers whose jobs call a real HTTP API that has a limit, and a picture of how it went.

Everything runs in processes of its own on this machine: a private Valkey (broker, result store and
limiter), the API, which answers 429 to what is beyond its limit, and the workers. All of them end
with the demo, however it ends.
"""
