"""An LLM as the last resort: asked about the pairs on which the rules could not tell.

In: records, the rules' verdicts on them, and an OpenAI-compatible endpoint. Out: verdicts in the same order, and a
`JudgeReport` of what was asked, refused and found, with pairs for a person to spot-check.

The judge sees the problem, the gold and the final answer, never the whole text. An answer that holds nothing, or that
speaks to the judge, is not shown to it at all. Each pair is asked twice with the two answers swapped; both votes must
say the same, or the verdict stays `unknown`.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stratos_jax import prompts
from stratos_jax.grading.config import JudgeConfig
from stratos_jax.grading.extract import BOX, extract_answer
from stratos_jax.types import Verdict

NEVER_ASKED = ("unknown.gold_empty",)
VOTE = re.compile(r"^[\s*`#>]*VERDICT:\s*(SAME|DIFFERENT|UNSURE)[\s*`.]*$", re.M | re.I)
INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:above|previous|prior|instruction|rule|prompt|everything)|"
    r"\bverdict\b|\binstructions?\b|\bjudge\b|\bgrader?\b|\bgrading\b|\bsystem prompt\b|\bas an ai\b|"
    r"\byou (?:are|must|should)\b|"
    r"\b(?:respond|reply|answer|output|say|print|return)\s+(?:with|only|that|true|correct|same)\b|"
    r"\b(?:mark|accept|treat|consider|count)\b.{0,20}\b(?:this|it|as)\b.{0,20}\b(?:correct|right|same|true|equal)|"
    r"\b(?:the )?(?:reference|gold|first|second|other) answer\b|<\|[^|]*\||</?(?:system|user|assistant|think)>|"
    r"(?:^|\n)\s*(?:system|user|assistant)\s*:",
    re.I | re.S,
)
FILLER = re.compile(
    r"\W*(?:solution|thought process|answer|final answer|the answer(?: is)?|let'?s .*|let us .*|step by step.*|"
    r"see above|as above|same|correct|true answer|ok|okay|sure|yes it is correct|done|n/?a|unknown|"
    r"i don'?t know|\?+)\W*",
    re.I | re.S,
)


@dataclasses.dataclass(kw_only=True, slots=True)
class JudgeReport:
    """What the judge was asked and what came of it; filled while the verdicts are read."""

    model: str = ""
    considered: int = 0  # verdicts of a kind that the judge may be asked about
    asked: int = 0  # pairs that were sent, each once or twice
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict)  # by reason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spot_checks: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Judge:
    """One endpoint and one model; safe to use from several threads."""

    def __init__(self, config: JudgeConfig, report: JudgeReport | None = None):
        import openai

        self.config, self.report = config, report if report is not None else JudgeReport()
        self.report.model = config.model
        self.lock = threading.Lock()
        self.client = openai.OpenAI(
            base_url=config.base_url,
            api_key=os.environ.get(config.api_key_variable) or "none",  # many local servers want any string
            timeout=config.timeout_seconds,
            max_retries=config.max_retries,
        )

    def review(self, pairs: Iterable[tuple[Mapping[str, Any], Verdict]]) -> Iterator[Verdict]:
        """Verdicts in the order given; those that the judge may not be asked about pass through untouched."""
        waiting: collections.deque[concurrent.futures.Future[Verdict] | Verdict] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(self.config.concurrency) as threads:
            try:
                for record, verdict in pairs:
                    waiting.append(threads.submit(self._one, record, verdict) if self._may_ask(verdict) else verdict)
                    while waiting and (_ready(waiting[0]) or len(waiting) > 8 * self.config.concurrency):
                        yield _result(waiting.popleft())
                while waiting:
                    yield _result(waiting.popleft())
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _may_ask(self, verdict: Verdict) -> bool:
        if verdict.outcome == "unknown":
            return verdict.reason not in NEVER_ASKED
        return verdict.outcome == "wrong" and self.config.judge_wrong and ".no_answer" not in verdict.reason

    def _one(self, record: Mapping[str, Any], verdict: Verdict) -> Verdict:
        """Guard, ask, and count."""
        problem, gold, answer = str(record.get("problem") or ""), final(str(record["gold"])), verdict.extracted
        why = refusal(answer, gold, self.config)
        replies: list[str] = []
        if why:
            outcome, reason = verdict.outcome, f"judge.refused.{why}"
        else:
            outcome, reason = self._votes(problem, gold, answer, replies)
        if verdict.outcome == "wrong" and outcome != "right":
            outcome, reason = "wrong", verdict.reason  # only a clear `same` overrules the rules
        elif outcome == "unknown":
            reason = reason.replace("judge.", "unknown.judge_", 1)
        with self.lock:
            self.report.considered += 1
            self.report.asked += not why
            self.report.outcomes[reason] = self.report.outcomes.get(reason, 0) + 1
            if not why and self._chosen(verdict.id):
                self.report.spot_checks.append(
                    {"id": verdict.id, "problem": problem, "gold": gold, "answer": answer, "outcome": outcome,
                     "reason": reason, "replies": replies}
                )  # fmt: skip
        return dataclasses.replace(verdict, outcome=outcome, reason=reason)

    def _votes(self, problem: str, gold: str, answer: str, replies: list[str]) -> tuple[Any, str]:
        """Both orders must agree."""
        orders = [(gold, answer), (answer, gold)] if self.config.swap_votes else [(gold, answer)]
        votes = []
        for first, second in orders:
            try:
                reply = self._ask(problem, first, second)
            except Exception as error:  # the endpoint failed: not a verdict on the answer
                return "unknown", f"judge.error.{type(error).__name__}"
            replies.append(reply)
            found = VOTE.findall(reply)
            if not found:
                return "unknown", "judge.unreadable_reply"
            votes.append(found[-1].upper())
            if votes[-1] == "UNSURE":
                return "unknown", "judge.unsure"
        if len(set(votes)) > 1:
            return "unknown", "judge.votes_differ"
        return ("right", "judge.same") if votes[0] == "SAME" else ("wrong", "judge.different")

    def _ask(self, problem: str, first: str, second: str) -> str:
        fields = {"problem": problem[: self.config.max_problem_chars], "first": first, "second": second}
        user = prompts.JUDGE_USER.format(**{name: json.dumps(text) for name, text in fields.items()})
        reply = self.client.chat.completions.create(
            model=self.config.model,
            messages=[{"role": "system", "content": prompts.JUDGE_SYSTEM}, {"role": "user", "content": user}],
            temperature=self.config.temperature,
            max_tokens=self.config.max_tokens,
        )
        with self.lock:
            if reply.usage:
                self.report.prompt_tokens += reply.usage.prompt_tokens
                self.report.completion_tokens += reply.usage.completion_tokens
        return (reply.choices[0].message.content or "") if reply.choices else ""

    def _chosen(self, identity: str) -> bool:
        """A fixed share of the ids, the same in every run."""
        return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") < self.config.spot_check * 2**32


def final(gold: str) -> str:
    """The answer in a gold that is a whole solution."""
    return (extract_answer(gold, ()).answer or "") if BOX.search(gold) else gold


def refusal(answer: str, gold: str, config: JudgeConfig) -> str | None:
    """Why an answer is not shown to the judge; None where it may be."""
    if not re.search(r"[^\W_]", answer):
        return "empty"
    if FILLER.fullmatch(re.sub(r"\\text\s*\{([^}]*)\}", r"\1", answer)) and answer.strip() != gold.strip():
        return "filler"
    if INSTRUCTION.search(re.sub(r"\\[a-zA-Z]+\s*\{|[{}$\\~]", " ", answer)):
        return "instruction"
    if len(answer) > config.max_answer_chars:
        return "too_long"
    return None if gold.strip() else "no_gold"


def _ready(item: Any) -> bool:
    return isinstance(item, Verdict) or item.done()


def _result(item: Any) -> Verdict:
    return item if isinstance(item, Verdict) else item.result()


def review(
    records: Iterable[Mapping[str, Any]],
    grade: Callable[[Iterable[Mapping[str, Any]]], Iterator[Verdict]],
    config: JudgeConfig,
    report: JudgeReport | None = None,
) -> Iterator[Verdict]:
    """Grade by the rules, then let the judge see what they leave open; records are read once, as they are needed."""
    kept: collections.deque[Mapping[str, Any]] = collections.deque()

    def remembered() -> Iterator[Mapping[str, Any]]:
        for record in records:
            kept.append(record)
            yield record

    pairs = ((kept.popleft(), verdict) for verdict in grade(remembered()))
    return Judge(config, report).review(pairs)
