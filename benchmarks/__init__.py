"""What we claim about speed, measured beside the peers: one benchmark a file, each to be run alone.

Example:
    ``python -m benchmarks.redis_calls --quick``, or ``make bench`` for all of them.
"""
