"""The practice teacher: a program behind a real OpenAI-compatible endpoint on loopback, faults included.

In: POST /v1/chat/completions. Out: reasoning and a boxed answer worked out from the question's text; now and then a
wrong one, a truncated one, "429 Too Many Requests", an empty message, or a connection that closes half-way. Wrong and
truncated answers are a function of the request; the others pass when the same request comes again. A process of its
own.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from stratos_jax.curate import procedural
from stratos_jax.curate.config import FaultsConfig, TeacherConfig
from stratos_jax.types import UserError, from_json, to_json

START_SECONDS = 120
MARK = "practice teacher at "


@contextlib.contextmanager
def serve(config: TeacherConfig) -> Iterator[str]:
    """Run the teacher in a process of its own while the block runs; gives its base URL."""
    settings = json.dumps({"port": config.port, "seed": config.seed, "faults": to_json(config.faults)})
    command = [sys.executable, "-P", "-m", "stratos_jax.curate.practice", settings]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout and process.stdin and process.stderr
        line = process.stdout.readline()
        timer.cancel()
        if not line.startswith(MARK):
            error = process.stderr.read().strip().splitlines()
            raise UserError(
                "the practice teacher did not start",
                where=f"port {config.port}",
                got=error[-1] if error else "no message",
                do="set curate.teacher.port=0 to take any free port",
            )
        yield line.removeprefix(MARK).strip()
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


class Teacher:
    """Answers requests; remembers how often each came, so that a passing fault passes."""

    def __init__(self, faults: FaultsConfig, seed: int):
        self._faults, self._seed = faults, seed
        self._times: dict[str, int] = {}

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        """(HTTP status, JSON) of a request; None closes the connection half-way."""
        try:
            question = body["messages"][-1]["content"]
            reasoning, solution = self._work(question, body)
        except (KeyError, IndexError, TypeError, UserError) as error:
            return 400, {"error": {"message": f"cannot answer this: {error}", "type": "invalid_request_error"}}
        name = json.dumps(body, sort_keys=True)
        times = self._times[name] = self._times.get(name, 0) + 1
        fault = self._chance("passing", name) if times == 1 else 1.0
        for share, result in (
            (self._faults.rate_limited, (429, {"error": {"message": "slow down", "type": "rate_limit_error"}})),
            (self._faults.cut_off, (200, None)),
            (self._faults.empty, (200, _completion(body, "", "", "stop"))),
        ):
            if fault < share:
                return result
            fault -= share
        truncated = self._chance("truncated", name) < self._faults.truncated
        if truncated:
            return 200, _completion(body, reasoning[: len(reasoning) // 2], "", "length")
        return 200, _completion(body, reasoning, solution, "stop")

    def _work(self, question: str, body: dict[str, Any]) -> tuple[str, str]:
        steps, answer = procedural.work_out(question)
        name = json.dumps(body, sort_keys=True)
        if self._chance("wrong", name) < self._faults.wrong:
            answer += 1
        return reasoning_of(steps), f"\\boxed{{{answer}}}"

    def _chance(self, what: str, name: str) -> float:
        """A number from 0 to 1 that depends on the seed, what it is for, and the request alone."""
        digest = hashlib.sha256(f"{self._seed} {what} {name}".encode()).digest()
        return int.from_bytes(digest[:7], "little") / 2**56


def reasoning_of(steps: list[str]) -> str:
    """The steps as one line of thought, with the last one checked."""
    return " ".join([*steps, "check", steps[-1], "ok"])


def _completion(body: dict[str, Any], reasoning: str, content: str, finish: str) -> dict[str, Any]:
    usage = {
        "prompt_tokens": _tokens(body["messages"][-1]["content"]),
        "completion_tokens": _tokens(reasoning + content),
    }
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {
        "id": "practice",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {**usage, "total_tokens": sum(usage.values())},
    }


def _tokens(text: str) -> int:
    return max(1, len(text) // 3)


async def _serve_connection(teacher: Teacher, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/1.1 with keep-alive, as far as a client of one endpoint needs it."""
    try:
        while request := await reader.readline():
            method, path, *_ = request.decode("latin-1").split()
            headers = {}
            while (line := await reader.readline()) not in (b"\r\n", b"\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if (method, path) != ("POST", "/v1/chat/completions"):
                status, answer = 404, {"error": {"message": f"no such endpoint: {method} {path}"}}
            else:
                status, answer = teacher.answer(json.loads(body))
            if answer is None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{")
                await writer.drain()
                return
            data = json.dumps(answer).encode()
            retry = "Retry-After: 0.05\r\n" if status == 429 else ""
            head = (
                f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\n{retry}Content-Length: {len(data)}\r\n\r\n"
            )
            writer.write(head.encode() + data)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError, ValueError):
        pass  # the client went away
    finally:
        writer.close()


async def _main(settings: dict[str, Any]) -> None:
    teacher = Teacher(from_json(FaultsConfig, settings["faults"]), settings["seed"])
    handler = lambda reader, writer: _serve_connection(teacher, reader, writer)
    server = await asyncio.start_server(handler, "127.0.0.1", settings["port"])
    print(f"{MARK}http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    await server.serve_forever()


def _end_with_parent() -> None:
    """Whoever started this process holds the other end of its standard input."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="the practice teacher; started by `stratos curate`")
    parser.add_argument("settings", help="JSON: port, seed, faults")
    asyncio.run(_main(json.loads(parser.parse_args().settings)))
