"""Dramatiq actors whose jobs start when a limiter lets them.

Example:
    >>> import dramatiq
    >>> from dramatiq.brokers.stub import StubBroker
    >>> from steindamm import SyncTokenBucket
    >>> from steindamm.integrations.dramatiq import RateLimitMiddleware
    >>> broker = StubBroker()
    >>> broker.add_middleware(RateLimitMiddleware())
    >>> api = SyncTokenBucket.from_rate("100/m", name="mail api", connection="redis://localhost")
    >>> @dramatiq.actor(broker=broker, limiter=api)
    ... def send_mail(to):
    ...     return f"sent to {to}"

A job that may not start yet goes back to its queue until its turn. It takes no worker thread meanwhile, and
none of its retries.
"""

from steindamm.integrations.dramatiq.deferral import DeferralRefusedError
from steindamm.integrations.dramatiq.middleware import LimitOptionError, RateLimitMiddleware

__all__ = ["DeferralRefusedError", "LimitOptionError", "RateLimitMiddleware"]
