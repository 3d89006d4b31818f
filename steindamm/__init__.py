"""Rate and concurrency limits for Python code and task-queue workers, in memory or on Redis."""

from steindamm.async_all_of import AsyncAllOf
from steindamm.async_semaphore import AsyncLocalSemaphore, AsyncRedisSemaphore, AsyncSemaphore
from steindamm.async_token_bucket import AsyncLocalTokenBucket, AsyncRedisTokenBucket, AsyncTokenBucket
from steindamm.errors import (
    AlreadySettledError,
    CostAboveCapacityError,
    LimiterUnavailableError,
    MaxSleepExceededError,
    NoTokensAvailableError,
    SteindammError,
    Throttled,
)
from steindamm.joining import all_of
from steindamm.permits import AsyncTokenPermit, Permit, SlotPermit, SyncTokenPermit
from steindamm.rate import Rate
from steindamm.reservations import AsyncReservation, SyncReservation
from steindamm.running import current_permit
from steindamm.settings import Adapt
from steindamm.several_limits import AllOfPermit
from steindamm.state import Counters, Holder, Override, SemaphoreState, TokenBucketState
from steindamm.sync_all_of import SyncAllOf
from steindamm.sync_semaphore import SyncLocalSemaphore, SyncRedisSemaphore, SyncSemaphore
from steindamm.sync_token_bucket import SyncLocalTokenBucket, SyncRedisTokenBucket, SyncTokenBucket
from steindamm.whereabouts import Whereabouts, where_is, where_is_async

__all__ = [
    "Adapt",
    "AllOfPermit",
    "AlreadySettledError",
    "AsyncAllOf",
    "AsyncLocalSemaphore",
    "AsyncLocalTokenBucket",
    "AsyncRedisSemaphore",
    "AsyncRedisTokenBucket",
    "AsyncReservation",
    "AsyncSemaphore",
    "AsyncTokenBucket",
    "AsyncTokenPermit",
    "CostAboveCapacityError",
    "Counters",
    "Holder",
    "LimiterUnavailableError",
    "MaxSleepExceededError",
    "NoTokensAvailableError",
    "Override",
    "Permit",
    "Rate",
    "SemaphoreState",
    "SlotPermit",
    "SteindammError",
    "SyncAllOf",
    "SyncLocalSemaphore",
    "SyncLocalTokenBucket",
    "SyncRedisSemaphore",
    "SyncRedisTokenBucket",
    "SyncReservation",
    "SyncSemaphore",
    "SyncTokenBucket",
    "SyncTokenPermit",
    "Throttled",
    "TokenBucketState",
    "Whereabouts",
    "all_of",
    "current_permit",
    "where_is",
    "where_is_async",
]
