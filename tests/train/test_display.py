"""What a person sees of a run where lines are plain."""

import io
import time

from stratos_jax.train.display import Display


def test_time_left_counts_neither_the_compilation_nor_steps_of_an_earlier_run(monkeypatch):
    """The first record comes after the step was compiled, perhaps in the middle of a run that goes on."""
    clock = iter([1_000.0, 1_000.0, 1_002.0, 1_002.0, 1_004.0, 1_004.0])
    stream = io.StringIO()
    display = Display(100, stream=stream)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    for step in (81, 82):
        display.update({"step": step, "loss": 1.0})
    first, second = stream.getvalue().splitlines()
    assert "left" not in first
    assert second.endswith("0:00:36 left")
