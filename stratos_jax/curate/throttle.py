"""How fast the teacher may be asked: requests and tokens a minute, and as many at once as the endpoint bears.

In: what each request will need, and how it ended. Out: waiting. Concurrency grows by one for each round of answers
and is halved when the endpoint says that it is too much.
"""

import asyncio
import time

HALVE_AT_MOST_EVERY = 1.0  # seconds: the answers of one burst count once


class Bucket:
    """A rate: `take` waits until so much is there; None never waits."""

    def __init__(self, per_minute: float | None):
        self._rate = None if per_minute is None else per_minute / 60
        self._level, self._time = 0.0, time.monotonic()

    async def take(self, amount: float) -> None:
        """Wait until the rate allows `amount` more; one second's worth may be saved up."""
        if self._rate is None:
            return
        now = time.monotonic()
        self._level = min(self._rate, self._level + (now - self._time) * self._rate) - amount
        self._time = now
        if self._level < 0:
            await asyncio.sleep(-self._level / self._rate)


class Concurrency:
    """At most `limit` requests at once; the limit follows what the endpoint says."""

    def __init__(self, most: int):
        self._most, self.limit = most, float(min(most, 16))
        self._at_work, self._halved, self._resume = 0, 0.0, 0.0
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> None:
        while (wait := self._resume - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        async with self._changed:
            await self._changed.wait_for(lambda: self._at_work < int(self.limit))
            self._at_work += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._changed:
            self._at_work -= 1
            self._changed.notify_all()

    def went_well(self) -> None:
        """An answer came: a little more at once."""
        self.limit = min(self._most, self.limit + 1 / self.limit)

    def too_much(self, retry_after: float) -> None:
        """The endpoint refused: half as many at once, and none before it allows."""
        now = time.monotonic()
        self._resume = max(self._resume, now + retry_after)
        if now - self._halved > HALVE_AT_MOST_EVERY:
            self.limit, self._halved = max(1.0, self.limit / 2), now
