"""The whole chain killed with -9 at random moments and run again: the report that an undisturbed run gives."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

STUDENT = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 384,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
WORDS = (
    "curate.problems.procedural.problems=300",
    "curate.problems.procedural.held_out=18",
    "train.max_steps=40",
    "train.checkpoint.every_steps=10",
    "evaluate.sampling.max_tokens=12",
    "engine.decode_steps=2",
    "convert.proof_tokens=16",
    f"model.hf={json.dumps(STUDENT)}",
)
KILLS = 20
LONGEST = 120.0  # seconds that an undisturbed run may be killed in


def start(folder):
    command = [sys.executable, "-m", "stratos_jax.cli", "run", "configs/quickstart.py", *WORDS, "--dir", str(folder)]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(folder):
    process = start(folder)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path):
    began = time.monotonic()
    wanted = finish(tmp_path / "calm")
    whole = min(LONGEST, time.monotonic() - began)
    rng = random.Random(7)
    kills = 0
    while kills < KILLS:
        folder = tmp_path / f"killed-{kills}"
        for _ in range(5):  # several kills of one run, then its end
            process = start(folder)
            try:
                process.communicate(timeout=rng.uniform(0.05, 1.0) * whole)
                assert process.returncode == 0
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
        assert finish(folder) == wanted
        for name in ("curate/dataset.jsonl", "traces/evaluate/samples.jsonl", "answers_only/evaluate/verdicts.jsonl"):
            assert (folder / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
        answers = (folder / "answers" / "answers.jsonl").read_text().splitlines()
        keys = [json.loads(line)["key"] for line in answers]
        assert len(keys) == len(set(keys)) == 300  # nothing was asked for twice


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    process = start(tmp_path / "run")
    while not (tmp_path / "run" / "answers" / "answers.jsonl").exists():
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "To go on: stratos run configs/quickstart.py" in errors and "Traceback" not in errors
