"""Rate and concurrency limits for Python code and task-queue workers, in memory or on Redis."""

from steindamm.async_token_bucket import AsyncLocalTokenBucket, AsyncRedisTokenBucket, AsyncTokenBucket
from steindamm.errors import LimiterUnavailableError, MaxSleepExceededError, NoTokensAvailableError, SteindammError
from steindamm.permits import Permit, SlotPermit
from steindamm.rate import Rate
from steindamm.reservations import AsyncReservation, SyncReservation
from steindamm.sync_token_bucket import SyncLocalTokenBucket, SyncRedisTokenBucket, SyncTokenBucket
