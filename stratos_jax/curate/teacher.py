"""The teacher client: asks an OpenAI-compatible endpoint each problem, and yields traces.

In: problems, a `TeacherConfig`, a request store. Out: `Trace`s in the order of the problems. What is in the store is
not asked again; answers go into it as they come, so that a killed run pays for nothing twice.
"""

import asyncio
import dataclasses
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stratos_jax import prompts
from stratos_jax.curate.config import TeacherConfig
from stratos_jax.curate.requests import RequestStore, request_key
from stratos_jax.curate.throttle import Bucket, Concurrency
from stratos_jax.types import Problem, Trace, UserError, json_hash, to_json

MAX_BACKOFF = 60.0  # seconds
HOPELESS = 3  # failures to connect before any answer came, after which the endpoint counts as not there
SHOWN_FAILURES = 5

Progress = Callable[[int, int, str], None]  # done, of how many, a note


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request: the body as it is sent, and the key of its answer."""

    problem_id: str
    sample_index: int
    body: dict[str, Any]
    key: str


class Fatal(Exception):
    """No request will succeed."""


def ask_all(
    problems: Sequence[Problem],
    config: TeacherConfig,
    protocol: prompts.Protocol,
    answers: RequestStore,
    base_url: str,
    progress: Progress,
) -> None:
    """Put an answer to every request into the store, or raise one error that says what is missing and why."""
    asks = [_ask(p, i, config, protocol) for p in problems for i in range(config.samples)]
    asyncio.run(_Client(config, answers, base_url, progress).ask_all(asks))
    if config.truncated == "raise_cap":
        longer = [_raised(a, config) for a in asks if answers.get(a.key)["finish_reason"] == "length"]
        asyncio.run(_Client(config, answers, base_url, progress).ask_all(longer))


def traces(
    problems: Sequence[Problem], config: TeacherConfig, protocol: prompts.Protocol, answers: RequestStore
) -> Iterator[Trace]:
    """The stored answers as traces; a truncated one gives way to its longer second try."""
    for problem in problems:
        for index in range(config.samples):
            ask = _ask(problem, index, config, protocol)
            record = answers.get(ask.key)
            if record["finish_reason"] == "length" and config.truncated == "raise_cap":
                ask = _raised(ask, config)
                record = answers.get(ask.key)
            yield Trace(
                id=f"{problem.id}/{index}",
                problem_id=problem.id,
                sample_index=index,
                model=config.model,
                reasoning=record["reasoning"],
                solution=record["solution"],
                finish_reason="length" if record["finish_reason"] == "length" else "stop",
                prompt_tokens=record["prompt_tokens"],
                completion_tokens=record["completion_tokens"],
                cost_usd=record["cost_usd"],
                request_hash=ask.key,
            )


def endpoint_name(config: TeacherConfig) -> str:
    """What stands for the endpoint in a request's key; the embedded teacher's port may differ from run to run."""
    return config.base_url or f"practice:{json_hash([config.seed, to_json(config.faults)])[:16]}"


def _ask(problem: Problem, index: int, config: TeacherConfig, protocol: prompts.Protocol) -> Ask:
    messages = [{"role": "system", "content": protocol.teacher_system}] if protocol.teacher_system else []
    messages.append({"role": "user", "content": protocol.teacher(problem)})
    body: dict[str, Any] = {"model": config.model, "messages": messages, "max_tokens": config.max_tokens}
    if config.temperature is not None:
        body["temperature"] = config.temperature
    key = request_key(endpoint_name(config), body, index)
    return Ask(problem_id=problem.id, sample_index=index, body=body, key=key)


def _raised(ask: Ask, config: TeacherConfig) -> Ask:
    body = {**ask.body, "max_tokens": config.raised_max_tokens}
    return dataclasses.replace(ask, body=body, key=request_key(endpoint_name(config), body, ask.sample_index))


class _Client:
    """Asks many requests at once; one instance for one event loop."""

    def __init__(self, config: TeacherConfig, answers: RequestStore, base_url: str, progress: Progress):
        self._config, self._answers, self._base_url, self._progress = config, answers, base_url, progress
        self._concurrency = Concurrency(config.concurrency)
        self._requests, self._tokens = Bucket(config.requests_per_minute), Bucket(config.tokens_per_minute)
        self._spent = self._reserved = self._completion_tokens = 0.0
        self._answered = self._unreachable = self._retries = 0
        self._failures: list[str] = []
        self._over_budget = ""
        self._done = 0

    async def ask_all(self, asks: Sequence[Ask]) -> None:
        """Answer what is not in the store yet."""
        import openai

        waiting = [a for a in asks if a.key not in self._answers]
        self._spent = sum(self._answers.get(a.key)["cost_usd"] for a in asks if a.key in self._answers)
        done = self._done = len(asks) - len(waiting)
        self._progress(done, len(asks), f"{done} were there already" if done else "")
        if not waiting:
            return
        key = os.environ.get(self._config.api_key_variable, "") if self._config.base_url else "practice"
        if not key:
            raise UserError(
                "no key for the teacher's endpoint",
                where=self._config.base_url,
                do=f"export {self._config.api_key_variable}=...; any text will do where the endpoint wants none",
            )
        queue = iter(waiting)
        timeout = self._config.timeout_seconds
        client = openai.AsyncOpenAI(base_url=self._base_url, api_key=key, max_retries=0, timeout=timeout)
        async with client:
            workers = min(self._config.concurrency, len(waiting))
            tasks = [asyncio.create_task(self._work(client, queue, len(asks))) for _ in range(workers)]
            try:
                await asyncio.gather(*tasks)
            except Fatal as error:
                self._stop(error, len(asks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if self._over_budget:
            self._stop(None, len(asks))
        if self._failures:
            self._stop(Fatal("some requests found no answer"), len(asks))

    async def _work(self, client: Any, queue: Iterator[Ask], total: int) -> None:
        for ask in queue:
            record = await self._ask(client, ask)
            if self._over_budget and record is None:
                return
            if record is None:
                continue
            self._answers.put(ask.key, record)
            self._done += 1
            self._progress(self._done, total, self._note())

    def _note(self) -> str:
        money = f", ${self._spent:.2f}" if self._config.usd_per_million_completion_tokens else ""
        return f"{int(self._concurrency.limit)} at once, {self._retries} retries{money}"

    async def _ask(self, client: Any, ask: Ask) -> dict[str, Any] | None:
        """Try until there is an answer; None, and a line among the failures, where there is none."""
        paid, problem = 0.0, ""
        for attempt in range(self._config.max_retries + 1):
            if attempt:
                self._retries += 1
                await asyncio.sleep(min(MAX_BACKOFF, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
            async with self._concurrency:
                most = await self._reserve(ask)
                if self._over_budget:
                    return None
                try:
                    record, problem, again = await self._once(client, ask)
                finally:
                    self._reserved -= most
            if record is not None:
                paid += record["cost_usd"]
                self._spent += record["cost_usd"]
                if not problem:
                    return {**record, "cost_usd": paid, "attempts": attempt + 1}
            if not again:
                break
        self._failures.append(f"{ask.problem_id}/{ask.sample_index}: {problem}")
        return None

    async def _once(self, client: Any, ask: Ask) -> tuple[dict[str, Any] | None, str, bool]:
        """(what came, what is wrong with it, is it worth another try) of one request."""
        import openai

        await self._requests.take(1)
        await self._tokens.take(_estimate(ask.body) + self._completion_tokens / max(1, self._answered))
        try:
            response = await client.chat.completions.create(**ask.body)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise Fatal(f"HTTP {error.status_code}: {error.message}") from error
        except openai.RateLimitError as error:
            self._concurrency.too_much(_retry_after(error))
            return None, "HTTP 429", True
        except (openai.APIConnectionError, openai.InternalServerError, openai.APIResponseValidationError) as error:
            if isinstance(error, openai.APIConnectionError) and not self._answered:
                self._unreachable += 1
                if self._unreachable >= HOPELESS:
                    raise Fatal(f"no connection: {error.__cause__ or error}") from error
            return None, type(error).__name__, True
        except openai.APIStatusError as error:
            return None, f"HTTP {error.status_code}: {error.message}", error.status_code in (408, 409)
        except ValueError as error:  # HTTP 200 with something that is no JSON
            return None, f"not an answer: {error}", True
        self._answered += 1
        self._concurrency.went_well()
        return self._read(response)

    def _read(self, response: Any) -> tuple[dict[str, Any] | None, str, bool]:
        choice = response.choices[0] if getattr(response, "choices", None) else None
        if choice is None:
            return None, "an answer without choices", True
        prompt, completion = _usage(response)
        self._completion_tokens += completion
        config = self._config
        cost = prompt * config.usd_per_million_prompt_tokens + completion * config.usd_per_million_completion_tokens
        record = {
            "solution": choice.message.content or "",
            "reasoning": getattr(choice.message, "reasoning_content", None) or "",
            "finish_reason": choice.finish_reason or "stop",
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cost_usd": cost / 1e6,
        }
        empty = not record["solution"].strip() and record["finish_reason"] != "length"
        return record, "an empty answer" if empty else "", True

    async def _reserve(self, ask: Ask) -> float:
        """Set aside the most that a request can cost, once those under way leave so much."""
        config = self._config
        prompt, completion = _estimate(ask.body), ask.body["max_tokens"]
        prices = config.usd_per_million_prompt_tokens, config.usd_per_million_completion_tokens
        most = (prompt * prices[0] + completion * prices[1]) / 1e6
        budget = math.inf if config.budget_usd is None else config.budget_usd
        while not self._over_budget and self._spent + self._reserved + most > budget:
            if self._spent + most > budget:
                self._over_budget = f"${self._spent:.2f} spent of ${budget:.2f}; a request may cost ${most:.4f}"
            await asyncio.sleep(0.02)
        self._reserved += most
        return most

    def _stop(self, error: Exception | None, total: int) -> None:
        failures = "; ".join(self._failures[:SHOWN_FAILURES])
        budget, got = error is None, self._over_budget if error is None else error
        raise UserError(
            "the teacher's budget is used up" if budget else "the teacher did not answer everything",
            where=self._base_url,
            got=f"{got}{': ' if failures else ''}{failures}",
            wanted=f"{total} answers; {self._done} are there and will not be asked or paid for again",
            do="raise curate.teacher.budget_usd and run again" if budget else "see to the endpoint, and run again",
        ) from error


def _usage(response: Any) -> tuple[int, int]:
    usage = getattr(response, "usage", None)
    return (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)


def _estimate(body: dict[str, Any]) -> int:
    """Prompt tokens, counted high."""
    return sum(len(message["content"]) for message in body["messages"]) // 2


def _retry_after(error: Any) -> float:
    try:
        return float(error.response.headers.get("retry-after", 1.0))
    except ValueError:  # a date
        return 5.0
