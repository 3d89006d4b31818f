"""A time zone in which summer time ends when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

HOUR = timedelta(hours=1)


class SummerTime(tzinfo):
    """Clocks are set back by an hour so long from now, and tell the hour before that twice."""

    def __init__(self, ends_in: timedelta) -> None:
        self.ends = datetime.now(UTC).replace(tzinfo=None) + ends_in

    def utcoffset(self, moment: datetime | None) -> timedelta:
        assert moment
        told = moment.replace(tzinfo=None)
        return HOUR if told < self.ends or (told < self.ends + HOUR and not moment.fold) else timedelta()

    def dst(self, moment: datetime | None) -> timedelta:
        return self.utcoffset(moment)

    def fromutc(self, moment: datetime) -> datetime:
        utc = moment.replace(tzinfo=None)
        if utc < self.ends:
            return moment + HOUR
        return moment.replace(fold=int(utc < self.ends + HOUR))
