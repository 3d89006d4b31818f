"""Limits as people say them."""

from __future__ import annotations

import pytest

from steindamm import AsyncTokenBucket, Rate, SyncTokenBucket


@pytest.mark.parametrize(
    ("text", "amount", "period"),
    [
        ("100/m", 100, 60),
        ("5/s", 5, 1),
        ("1000/h", 1000, 3_600),
        ("1/d", 1, 86_400),
        ("100/minute", 100, 60),
        ("100/15m", 100, 900),
        ("2.5 / 10 sec", 2.5, 10),
        (" 1000/day ", 1000, 86_400),
        ("3/0.5h", 3, 1_800),
    ],
)
def test_a_rate_is_read_as_it_is_said(text: str, amount: float, period: float) -> None:
    assert Rate.parse(text) == Rate(amount, period)


@pytest.mark.parametrize(
    "text",
    ["100/fortnight", "100", "", "/m", "100/", "-1/s", "1/s/s", "one/s", "1/S", "1e3/s", "\u0661/s", "nan/s", "1\n/x"],
)
def test_what_is_no_rate_is_an_error_that_lists_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r"^rate must read like .* units s, m, h, d, not"):
        Rate.parse(text)


@pytest.mark.parametrize("wrong", [100, None, b"100/m", ("100", "m")])
def test_what_is_no_text_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^rate must be a str"):
        Rate.parse(wrong)


@pytest.mark.parametrize("text", ["0/s", "5/0s", "2000000/s", "1/4000d", "9" * 400 + "/s"])
def test_a_rate_that_no_clock_could_keep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(amount|period|rate) must"):
        Rate.parse(text)


@pytest.mark.parametrize("kind", [SyncTokenBucket, AsyncTokenBucket])
def test_a_bucket_made_from_a_rate_refills_one_token_at_a_time(kind) -> None:
    settings = kind.from_rate("100/m", "mail").settings
    assert (settings.capacity, settings.refill_amount, settings.refill_frequency) == (1, 1, 0.6)


def test_a_bucket_made_from_a_rate_holds_what_it_is_told() -> None:
    assert SyncTokenBucket.from_rate(Rate(5, 1), "mail", capacity=20).settings.capacity == 20
    assert SyncTokenBucket.from_rate("90000/m", "model", tokens_to_consume=800).settings.capacity == 800


def test_a_bucket_of_less_than_a_token_keeps_the_rate() -> None:
    settings = SyncTokenBucket.from_rate("1/s", "slow", capacity=0.5, tokens_to_consume=0.5).settings
    assert (settings.refill_amount, settings.refill_frequency) == (0.5, 0.5)


def test_the_other_settings_go_to_the_bucket() -> None:
    bucket = SyncTokenBucket.from_rate("5/s", name="mail", max_sleep=3, expiry=120)
    assert (bucket.settings.max_sleep, bucket.settings.expiry) == (3, 120)


@pytest.mark.parametrize(("setting", "wrong"), [("capacity", 0), ("capacity", "5"), ("max_sleep", -1), ("name", "")])
def test_a_wrong_setting_beside_a_rate_is_named(setting: str, wrong: object) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^{setting} must"):
        SyncTokenBucket.from_rate("5/s", **{"name": "mail", setting: wrong})
