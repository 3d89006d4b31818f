"""A channel is heard as the client speaks: in bytes or in text, in either version of the protocol."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import redis
import redis.asyncio
from support.buckets import call
from support.servers import HOST, Server

from steindamm.backends.redis.subscriptions import AsyncSubscription, Message, SyncSubscription, read

PATIENCE = 10.0
SOON = 0.05


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[False, True], ids=["bytes", "text"])
def settings(request: pytest.FixtureRequest, valkey: Server, protocol: int) -> dict[str, Any]:
    return {"host": HOST, "port": valkey.port, "protocol": protocol, "decode_responses": request.param}


async def listening(kind: Any, settings: dict[str, Any], patience: float) -> tuple[Any, str]:
    """A subscription and its channel."""
    channel = f"steindamm:{uuid.uuid4()}"
    if kind is SyncSubscription:
        return SyncSubscription(redis.Redis(**settings), channel, patience), channel
    return await AsyncSubscription.to(redis.asyncio.Redis(**settings), channel, patience), channel


@pytest.mark.parametrize("kind", [SyncSubscription, AsyncSubscription])
async def test_it_hears_that_it_listens_what_is_said_and_that_the_server_is_there(
    valkey: Server, settings: dict[str, Any], kind: Any
) -> None:
    heard, channel = await listening(kind, settings, PATIENCE)
    assert (await call(heard.next)).kind == "subscribe"
    for text in ("one 41", "another 42"):
        valkey.admin.publish(channel, text)
    assert [await call(heard.next), await call(heard.next)] == [
        Message("message", "one 41"), Message("message", "another 42"),
    ]  # fmt: skip
    await call(heard.ping)
    assert (await call(heard.next)).kind in {"pong", ""}
    await call(heard.close)


@pytest.mark.parametrize("kind", [SyncSubscription, AsyncSubscription])
async def test_silence_is_no_error_and_takes_nothing_from_what_comes_later(
    valkey: Server, settings: dict[str, Any], kind: Any
) -> None:
    heard, channel = await listening(kind, settings, SOON)
    while await call(heard.next) is not None:
        pass
    assert await call(heard.next) is None
    valkey.admin.publish(channel, "one 41")
    while (message := await call(heard.next)) is None:
        pass
    assert message == Message("message", "one 41")
    await call(heard.close)


@pytest.mark.parametrize("kind", [SyncSubscription, AsyncSubscription])
async def test_a_server_that_goes_away_is_an_error(server: Server, kind: Any) -> None:
    heard, _ = await listening(kind, {"host": HOST, "port": server.port}, PATIENCE)
    assert (await call(heard.next)).kind == "subscribe"
    server.kill()
    with pytest.raises(redis.ConnectionError):
        await call(heard.next)
    await call(heard.close)


@pytest.mark.parametrize("reply", [None, "PONG", b"PONG", 1, [], [b"message"], {}])
def test_anything_else_that_the_server_says_is_no_message(reply: Any) -> None:
    assert read(reply) == Message("")


def test_text_that_is_none_is_heard_as_what_it_may_be() -> None:
    assert read([b"message", b"steindamm:x", b"\xff 41"]) == Message("message", "\ufffd 41")
