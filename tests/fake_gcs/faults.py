"""Faults on request: refuse, reset, truncate, slow down or damage what matches a rule."""

import dataclasses
import random
import re
import threading
from typing import Literal

Kind = Literal["status", "reset", "reset_reply", "truncate", "drop_reply", "slow", "damage", "damage_upload"]


@dataclasses.dataclass
class Rule:
    """What to do with requests whose `METHOD /path?query` matches.

    status: answer with an error before looking at the request. reset: hang up in the middle of reading its body.
    drop_reply: do the work, then hang up without a word. reset_reply, truncate: hang up (hard, softly) in the
    middle of the reply's body. slow: wait first. damage, damage_upload: flip a bit of the bytes that go out, or in.
    """

    kind: Kind
    match: str = ""  # a regular expression, searched
    status: int = 503
    times: int | None = 1  # None: for ever
    chance: float = 1.0
    seconds: float = 0.0
    fired: int = 0


class Faults:
    """The rules in force."""

    def __init__(self, seed: int = 0):
        self.rules: list[Rule] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def add(self, kind: Kind, match: str = "", **options) -> Rule:
        """Put a rule in force."""
        rule = Rule(kind, match, **options)
        with self._lock:
            self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Take all rules away."""
        with self._lock:
            self.rules.clear()

    def pick(self, request: str) -> Rule | None:
        """The first rule that fires for this request."""
        if not self.rules:
            return None
        with self._lock:
            for rule in self.rules:
                spent = rule.times is not None and rule.fired >= rule.times
                if not spent and re.search(rule.match, request) and self._random.random() < rule.chance:
                    rule.fired += 1
                    return rule
        return None


def flip(data: bytes) -> bytes:
    """The bytes with one bit changed, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
