"""What strangers may write into a job's headers, and what a broken server may answer."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.buckets import call
from support.servers import HOST, Server

from steindamm import (
    AsyncSemaphore,
    AsyncTokenBucket,
    LimiterUnavailableError,
    SyncSemaphore,
    SyncTokenBucket,
    all_of,
)
from steindamm.integrations.bookings import MOST_DEFERRALS, Booking
from steindamm.joining import MOST

NUMBERS = count()
UNCHECKED = *settings().suppress_health_check, HealthCheck.function_scoped_fixture
EXAMPLES = settings(max_examples=150, suppress_health_check=UNCHECKED)

# Headers

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308, -0.0, 5e-324])
plain = st.none() | st.booleans() | numbers | st.text(max_size=20) | st.binary(max_size=20)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=9), inner, max_size=5)
)
headers = st.fixed_dictionaries({}, optional=dict.fromkeys(Booking._fields, values)) | values


@given(headers)
def test_any_header_is_read_as_a_booking_that_makes_sense(written: object) -> None:
    booking = Booking.read(written)
    assert isinstance(booking.limiter, str)
    assert 0 <= booking.deferrals <= MOST_DEFERRALS
    turns = booking.turn if isinstance(booking.turn, tuple) else (booking.turn,)
    assert len(turns) <= MOST
    for moment in (*turns, booking.since, booking.until, booking.place):
        assert moment is None or (moment >= 0 and math.isfinite(moment))


@given(headers)
def test_a_booking_that_was_read_is_written_and_read_again_as_it_is(written: object) -> None:
    booking = Booking.read(written)
    assert Booking.read(json.loads(json.dumps(booking.written()))) == booking


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False), st.floats(0, 1e6))
@EXAMPLES
def test_a_forged_turn_gains_no_token(valkey: Server, turn: float, horizon: float) -> None:
    bucket = SyncTokenBucket(f"forged {next(NUMBERS)}", capacity=2, refill_frequency=3_600, connection=valkey.url)
    granted = sum(bucket.ask(turn=turn, horizon=horizon).permit is not None for _ in range(5))
    assert granted <= 2
    assert (bucket.try_acquire() is None) == (granted == 2)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@EXAMPLES
def test_a_forged_arrival_number_gains_no_slot(valkey: Server, number: float) -> None:
    slots = SyncSemaphore(f"forged {next(NUMBERS)}", capacity=1, expiry=5, connection=valkey.url)
    permit = slots.acquire()
    away = slots.ask(turn=number)
    assert away.permit is None
    slots.release(permit)
    back = slots.ask(turn=away.turn)
    assert back.permit is not None
    slots.release(back.permit)


# Servers


class BrokenServer:
    """Answers every script call with the same bytes, and goes on or hangs up."""

    reply = b""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        port = self._listener.getsockname()[1]
        self.url = f"redis://user:hush-hush@{HOST}:{port}?protocol=2&socket_timeout=0.2"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            while data := client.recv(65536):
                if b"EVAL" in data:
                    client.sendall(self.reply)
                    return
                client.sendall(b"+OK\r\n" * max(1, data.count(b"SETINFO")))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def broken() -> Iterator[BrokenServer]:
    server = BrokenServer()
    yield server
    server.close()


lines = st.one_of(
    st.integers().map(lambda number: b":%d\r\n" % number),
    st.sampled_from([b":\r\n", b":one\r\n", b":1e3\r\n", b"*\r\n", b"*x\r\n", b"$-7\r\n", b"$nan\r\n", b"$3\r\nab"]),
    st.sampled_from(
        [
            b"*3\r\n",
            b"*-1\r\n",
            b"*4\r\n",
            b"*99999\r\n",
            b"%1\r\n%1\r\n",
            b"$-1\r\n",
            b"+OK\r\n",
            b",nan\r\n",
            b"%1\r\n",
        ]
    ),
    st.text(max_size=9).map(lambda text: b"-" + text.encode() + b"\r\n"),
    st.sampled_from([b"-NOSCRIPT no\r\n", b"-MOVED 1 x:1\r\n", b"-LOADING\r\n", b"-BUSY x\r\n", b"-ERR \xff\xfe\r\n"]),
    st.binary(max_size=9),
)
replies = st.lists(lines, max_size=5).map(b"".join)
LIMITERS: list[Any] = [SyncTokenBucket, AsyncTokenBucket, SyncSemaphore, AsyncSemaphore]


@pytest.mark.parametrize("kind", LIMITERS)
async def test_a_server_that_answers_nonsense_is_unavailable(broken: BrokenServer, kind: Any) -> None:
    """It may happen to answer sense; else there is one error, and it tells no password."""
    limiter = kind(name=f"broken {kind.__name__}", connection=broken.url)
    for reply in (
        b":\r\n",
        b":one\r\n",
        b"*x\r\n",
        b"-ERR \xff\xfe\r\n",
        b"*1\r\n:" + b"9" * 99 + b"\r\n",
    ):
        broken.reply = reply
        with pytest.raises(LimiterUnavailableError) as error:
            await call(limiter.try_acquire)
        assert error.value.name == limiter.name
        assert "hush" not in f"{error.value} {error.value.__cause__}"


@pytest.mark.parametrize("kind", LIMITERS)
async def test_a_server_whose_script_is_another_is_unavailable(broken: BrokenServer, kind: Any) -> None:
    limiter = kind(name=f"other {kind.__name__}", connection=broken.url)
    for reply in (
        b"+OK\r\n",
        b"*2\r\n:0\r\n:0\r\n",
        b"*3\r\n:7\r\n:0\r\n:0\r\n",
        b"*3\r\n:0\r\n$1\r\nx\r\n:0\r\n",
        b"*6\r\n" + 6 * b":0\r\n",
    ):
        broken.reply = reply
        with pytest.raises(LimiterUnavailableError, match="malformed reply") as error:
            await call(limiter.try_acquire)
        assert error.value.name == limiter.name


@pytest.mark.parametrize(
    ("bucket", "semaphore"), [(SyncTokenBucket, SyncSemaphore), (AsyncTokenBucket, AsyncSemaphore)]
)
async def test_it_is_so_for_several_limits(broken: BrokenServer, bucket: Any, semaphore: Any) -> None:
    both = all_of(bucket("other a", connection=broken.url), semaphore("other b", connection=broken.url))
    for reply in (b"*7\r\n:9\r\n" + 6 * b":0\r\n", b"*3\r\n" + 3 * b":0\r\n"):
        broken.reply = reply
        with pytest.raises(LimiterUnavailableError, match="malformed reply") as error:
            await call(both.try_acquire)
        assert error.value.name == both.name


@pytest.mark.parametrize("kind", [SyncTokenBucket, SyncSemaphore])
def test_whatever_a_server_answers_nothing_else_is_raised(broken: BrokenServer, kind: Any) -> None:
    @given(replies)
    @settings(max_examples=200)
    def answer(reply: bytes) -> None:
        broken.reply = reply
        limiter = kind(name=f"fuzzed {kind.__name__}", connection=broken.url)
        with suppress(LimiterUnavailableError):
            limiter.try_acquire()
        with suppress(LimiterUnavailableError):
            limiter.state()

    answer()
