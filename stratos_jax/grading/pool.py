"""Work shared among threads that each own one costly helper; results in input order, never far ahead of the reader."""

import collections
import concurrent.futures
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

AHEAD = 128  # items in flight or waiting for the reader, per worker: one slow program must not hold up the rest


class Closable(Protocol):
    def close(self) -> None: ...


Helper = TypeVar("Helper", bound=Closable)
Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    work: Callable[[Helper, Item], Result], items: Iterable[Item], make_helper: Callable[[], Helper], workers: int
) -> Iterator[Result]:
    """`work(helper, item)` for each item; helpers are made when first needed and closed at the end, come what may.

    Where the reader stops early, helpers are closed under the work that still runs, which then ends at once.
    """
    helpers: list[Helper] = []
    idle: queue.SimpleQueue[Helper] = queue.SimpleQueue()
    ending, changing = threading.Event(), threading.Lock()

    def one(item: Item) -> Result:
        try:
            helper = idle.get_nowait()
        except queue.Empty:
            helper = make_helper()
            with changing:
                if ending.is_set():  # made while the reader left: nobody else would close it under its work
                    helper.close()
                    raise concurrent.futures.CancelledError from None
                helpers.append(helper)
        try:
            return work(helper, item)
        finally:
            idle.put(helper)

    executor = concurrent.futures.ThreadPoolExecutor(max_workers=workers, thread_name_prefix="grade")
    pending: collections.deque[concurrent.futures.Future[Result]] = collections.deque()
    try:
        for item in items:
            pending.append(executor.submit(one, item))
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        with changing:
            ending.set()
        for helper in helpers:
            helper.close()
        executor.shutdown(wait=True)
