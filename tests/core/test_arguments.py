"""Wrong arguments are refused when a limiter is made, by an error that names them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from steindamm import AsyncTokenBucket, SyncTokenBucket

NAN, INF = math.nan, math.inf
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(params=[SyncTokenBucket, AsyncTokenBucket])
def kind(request: pytest.FixtureRequest):
    return request.param


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        *[("capacity", value) for value in (0, -1, NAN, INF, -INF, 1e-9, 1e10, 10**400, Decimal("sNaN"))],
        *[("refill_frequency", value) for value in (-1, NAN, INF, 1e-9, 1e10)],
        *[("refill_amount", value) for value in (-1, NAN, INF, 6, 1e-9)],
        *[("initial_tokens", value) for value in (-1, NAN, INF, 6)],
        *[("max_sleep", value) for value in (-1, NAN, INF)],
        *[("expiry", value) for value in (0, -1, NAN, INF)],
        *[("tokens_to_consume", value) for value in (-1, NAN, INF, 6)],
        *[("window_start_time", value) for value in (TOMORROW, datetime.max, datetime.min)],  # noqa: DTZ901
        *[("name", value) for value in ("", "x" * 201, "ä" * 101, "a{b", "a}b", "a\nb", "a\x00b", "\x7f", "\u2028")],
        ("name", "\ud800"),
        *[("connection", value) for value in ("", "localhost:6379", "http://localhost", "redis://localhost:port")],
        ("connection", "redis+cluster://localhost/3"),
    ],
)
def test_a_wrong_value_is_a_value_error_that_names_the_argument(kind, argument: str, wrong: object) -> None:
    settings = {"name": "arguments", "capacity": 5.0, argument: wrong}
    with pytest.raises(ValueError, match=rf"^{argument} must"):
        kind(**settings)


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        *[(number, "5") for number in ("capacity", "refill_frequency", "refill_amount", "max_sleep", "expiry")],
        *[(number, None) for number in ("capacity", "max_sleep", "expiry", "tokens_to_consume")],
        ("capacity", True),
        ("capacity", 1j),
        ("tokens_to_consume", [1]),
        ("initial_tokens", b"1"),
        ("window_start_time", "2026-01-01"),
        ("name", None),
        ("name", b"bytes"),
        ("connection", object()),
        ("connection", 6379),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_type_error_that_names_the_argument(kind, argument: str, wrong: object) -> None:
    settings = {"name": "arguments", "capacity": 5.0, argument: wrong}
    with pytest.raises(TypeError, match=rf"^{argument} must be"):
        kind(**settings)


@pytest.mark.parametrize(("amount", "frequency"), [(0, 1), (1, 0)])
def test_only_a_quota_has_no_refill_and_no_frequency(kind, amount: float, frequency: float) -> None:
    with pytest.raises(ValueError, match="refill_amount and refill_frequency must both"):
        kind(name="arguments", refill_amount=amount, refill_frequency=frequency)


def test_a_quota_has_no_windows(kind) -> None:
    with pytest.raises(ValueError, match="window_start_time must be None"):
        kind(name="arguments", refill_amount=0, refill_frequency=0, window_start_time=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("wrong", [-1, NAN, INF, 5.5])
def test_a_wrong_cost_is_refused_when_the_limiter_is_given_it(kind, wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^cost must"):
        kind(name="arguments", capacity=5)(wrong)


@pytest.mark.parametrize("wrong", ["5", b"5", True])
def test_a_cost_of_the_wrong_kind_is_refused_when_the_limiter_is_given_it(kind, wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^cost must be a number"):
        kind(name="arguments")(wrong)


def test_a_message_never_rounds_a_number_to_its_own_bound(kind) -> None:
    with pytest.raises(ValueError, match=r"^cost must not exceed capacity \(1000000\), not 1000001$"):
        kind(name="arguments", capacity=1_000_000)(1_000_001)


def test_an_unknown_argument_is_a_type_error(kind) -> None:
    with pytest.raises(TypeError, match="tokens"):
        kind(name="arguments", tokens=3)


@pytest.mark.parametrize("number", [3, 3.0, Fraction(3), Decimal(3)])
def test_any_real_number_will_do(kind, number) -> None:
    limiter = kind(name="arguments", capacity=number, refill_frequency=number, refill_amount=number)
    assert limiter.settings.capacity == limiter.settings.refill_amount == 3.0


@pytest.mark.parametrize("name", ["a", "x" * 200, "kunde/7 → müller", "user:1\u00a0🧑‍🔬", "a'b\"c*?[]"])
def test_any_other_name_will_do(kind, name: str) -> None:
    assert kind(name=name).name == name


@pytest.mark.parametrize("turn", [-1.0, NAN, INF])
def test_a_turn_that_is_no_moment_is_refused(turn: float) -> None:
    with pytest.raises(ValueError, match=r"^turn must"):
        SyncTokenBucket(name="arguments").ask(turn=turn)


@pytest.mark.parametrize("argument", ["accept", "horizon", "cost"])
@pytest.mark.parametrize("wrong", [-1.0, NAN, 1e10])
def test_what_a_job_asks_for_is_checked_too(argument: str, wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} must"):
        SyncTokenBucket(name="arguments").ask(**{argument: wrong})
