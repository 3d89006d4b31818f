"""Rate and concurrency limits for Python code and task-queue workers, in memory or on Redis."""

from steindamm.async_semaphore import AsyncLocalSemaphore, AsyncRedisSemaphore, AsyncSemaphore
from steindamm.async_token_bucket import AsyncLocalTokenBucket, AsyncRedisTokenBucket, AsyncTokenBucket
from steindamm.errors import LimiterUnavailableError, MaxSleepExceededError, NoTokensAvailableError, SteindammError
from steindamm.permits import Permit, SlotPermit
from steindamm.rate import Rate
from steindamm.reservations import AsyncReservation, SyncReservation
from steindamm.sync_semaphore import SyncLocalSemaphore, SyncRedisSemaphore, SyncSemaphore
from steindamm.sync_token_bucket import SyncLocalTokenBucket, SyncRedisTokenBucket, SyncTokenBucket

__all__ = [
    "AsyncLocalSemaphore",
    "AsyncLocalTokenBucket",
    "AsyncRedisSemaphore",
    "AsyncRedisTokenBucket",
    "AsyncReservation",
    "AsyncSemaphore",
    "AsyncTokenBucket",
    "LimiterUnavailableError",
    "MaxSleepExceededError",
    "NoTokensAvailableError",
    "Permit",
    "Rate",
    "SlotPermit",
    "SteindammError",
    "SyncLocalSemaphore",
    "SyncLocalTokenBucket",
    "SyncRedisSemaphore",
    "SyncRedisTokenBucket",
    "SyncReservation",
    "SyncSemaphore",
    "SyncTokenBucket",
]
