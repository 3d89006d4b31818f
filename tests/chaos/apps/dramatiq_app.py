"""Dramatiq's jobs."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import dramatiq
import redis
from dramatiq import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, Middleware

from chaos.apps.limits import BROKER, HOLDS, LIMITS, begin, how_it_ends, journal, note_deferrals, terms_of
from steindamm import SyncSemaphore, SyncTokenBucket
from steindamm.integrations.dramatiq import RateLimitMiddleware

limits = redis.Redis.from_url(LIMITS, socket_timeout=1, socket_connect_timeout=1)
note_deferrals("dramatiq")


class Journaling(Middleware):
    """Writes down when a worker is ready, and what it has in its hands: what it takes up, and what it sends on."""

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        journal.write("ready")

    def before_process_message(self, broker: Broker, message: Any) -> None:
        journal.write("taken", message.message_id)

    def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        journal.write("taken", message.message_id)


broker = RedisBroker(url=BROKER, heartbeat_timeout=4_000, maintenance_chance=100_000)
broker.add_middleware(Journaling(), before=AgeLimit)
broker.add_middleware(RateLimitMiddleware())
dramatiq.set_broker(broker)


@cache
def limiter(kind: str, round_: int) -> Any:
    make = SyncTokenBucket if kind != "slot" else SyncSemaphore
    return make(**terms_of(kind, round_), connection=limits)


@dramatiq.actor(limiter=lambda kind, round_, _: limiter(kind, round_))
def work(kind: str, round_: int, who: str) -> None:
    begin(kind, who)
    if kind == "slot":
        time.sleep(HOLDS)
    journal.write(how_it_ends(kind), who)
