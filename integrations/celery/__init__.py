"""Celery tasks whose jobs start when a limiter lets them.

Example:
    >>> from celery import Celery
    >>> from steindamm import SyncTokenBucket
    >>> from steindamm.integrations.celery import RateLimitedTask
    >>> app = Celery("shop")
    >>> api = SyncTokenBucket.from_rate("100/m", name="mail api", connection="redis://localhost")
    >>> @app.task(base=RateLimitedTask, limiter=api)
    ... def send_mail(to):
    ...     return f"sent to {to}"

A job that may not start yet is held by the worker's main process, or goes back to the queue, until its turn.
It takes no pool process meanwhile, and none of its retries.
"""

from steindamm.integrations.celery.task import RateLimitedTask

__all__ = ["RateLimitedTask"]
