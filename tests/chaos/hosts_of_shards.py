"""One host of a run, as a process: for each phase on stdin it writes the hashes of its rows of each step.

A phase is one JSON line {"index", "hosts", "begin", "end", "out", "pause"}: host `index` of `hosts` takes rows
[index * B / hosts, (index + 1) * B / hosts) of steps [begin, end) and appends one line a step to the file `out`.
The answer on stdout is "ready" at the start and "done" after each phase.
"""

import hashlib
import json
import sys
import time

from stratos_jax.shards import loader


def digest(values) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def play(opened: loader.Loader, phase: dict) -> None:
    """This host's part of the phase."""
    size = opened.rows_per_step // phase["hosts"]
    mine = slice(phase["index"] * size, (phase["index"] + 1) * size)
    with open(phase["out"], "a") as file:
        for step, batch in enumerate(opened.steps(phase["begin"], mine, stop=phase["end"]), start=phase["begin"]):
            rows = [[digest(batch[key][row]) for key in sorted(batch)] for row in range(size)]
            file.write(json.dumps({"step": step, "first": mine.start, "rows": rows}) + "\n")
            file.flush()
            time.sleep(phase["pause"])


def main() -> None:
    opened = loader.Loader(sys.argv[1], **json.loads(sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        play(opened, json.loads(line))
        print("done", flush=True)


if __name__ == "__main__":
    main()
