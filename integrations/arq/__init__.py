"""arq jobs that start when a limiter lets them.

Example:
    >>> from steindamm import AsyncTokenBucket
    >>> from steindamm.integrations.arq import rate_limited, rate_limited_worker
    >>> api = AsyncTokenBucket.from_rate("100/m", name="mail api", connection="redis://localhost")
    >>> @rate_limited(limiter=api)
    ... async def send_mail(ctx, to):
    ...     return f"sent to {to}"
    >>> @rate_limited_worker()
    ... class WorkerSettings:
    ...     functions = [send_mail]

A job that may not start yet goes back to its queue until its turn. It takes no place in the worker meanwhile,
and none of its tries.
"""

from steindamm.integrations.arq.decorator import rate_limited
from steindamm.integrations.arq.worker import rate_limited_worker

__all__ = ["rate_limited", "rate_limited_worker"]
