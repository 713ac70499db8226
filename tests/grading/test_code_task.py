"""Where the program stands in a response, and what counts as the same answer."""

import json

import pytest
from helpers import test_data_dir

from stratos_jax.grading import checkers
from stratos_jax.grading.code_task import extract_code

FENCE = "```"


@pytest.mark.parametrize(
    "response, code",
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("draft\n```python\nx = 1\n```\nbetter\n```py\nx = 2\n```\nprints\n```\n2\n```\n", "x = 2\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```text\nno\n```\n```\nx = 1\n```", "x = 1\n"),
        ("```cpp\nint x;\n```", None),
        ("<think>\n```python\nx = 1\n```\n</think>\nThe answer:\n```python\nx = 2\n```", "x = 2\n"),
        ("<think>\n```python\nx = 1\n```\n</think>\nno code", None),
        ("<|begin_of_thought|>\n```python\nx\n```\n<|end_of_thought|>\n```Python3\ny\n```", "y\n"),
        ("```python\nx = 1\n```\nNow better:\n```python\nx = 2  # cut off", None),
        ("```python\nx = 1\n```\nunfinished remark\n```", "x = 1\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
        ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
        ("```python title=a.py\nx = 1\n```", "x = 1\n"),
        ("no code at all, `x = 1`", None),
        ("```python\n```", ""),
        ("import sys\nprint(1)\n", "import sys\nprint(1)\n"),
        ("</think>\ndef f(x):\n    return x", "\ndef f(x):\n    return x"),
        ("The function f returns x.", None),
        ("", None),
    ],
)
def test_extraction(response, code):
    assert extract_code(response) == code


def test_extraction_agrees_with_a_public_benchmark():
    """On the 880 answers of one model, the same program as the official extraction wherever that one found any."""
    folder = test_data_dir()
    if folder is None:
        return
    rows = [json.loads(line) for line in (folder / "livecodebench_v5_o1mini.jsonl").read_text().splitlines()]
    differ = [
        r["question_id"]
        for r in rows
        if r["code"].strip() and r["code"].strip() != str(extract_code(r["output"])).strip()
    ]
    assert differ == []


CASES = [
    # checker, output, expected, same
    ("lines", "1 2 \n3\n\n", "1 2\n3", True),
    ("lines", "1  2\n", "1 2\n", False),
    ("lines", " 1", "1", False),
    ("lines", "1\n\n2", "1\n2", False),
    ("lines", "1.0", "1", False),
    ("lines", "1\r\n2\r\n", "1\n2\n", True),
    ("exact", "1\n", "1", True),
    ("exact", "1 \n", "1\n", False),
    ("tokens", "1  2\n\n 3", "1 2 3\n", True),
    ("tokens", "12", "1 2", False),
    ("floats", "0.3333333", "0.33333333333", True),
    ("floats", "yes 1.0000001", "yes 1", True),
    ("floats", "0.33", "0.33333333333", False),
    ("floats", "no 1", "yes 1", False),
    ("floats", "nan", "1", False),
    ("floats", "nan", "nan", True),
    ("floats", "inf", "1e400", True),
    ("floats", "inf", "1", False),
    ("floats", "1", "inf", False),
    ("floats", "1 2", "1", False),
    ({"kind": "floats", "tolerance": 0.01}, "0.33", "0.3333", True),
    ({"kind": "floats", "abs": 0.0, "rel": 0.01}, "1005", "1000", True),
    ({"kind": "floats", "abs": 0.01, "rel": 0}, "1000.1", "1000", False),
    ("unordered", "b\na\n", "a\nb", True),
    ("unordered", "a\na\nb", "a\nb\nb", False),
    ("unordered", "1 2\n3", "2 1\n3", False),
]


@pytest.mark.parametrize("checker, output, expected, same", CASES)
def test_texts(checker, output, expected, same):
    assert checkers.same_text(checkers.parse(checker), output, expected) is same


VALUES = [
    (None, 1, 1.0, True),
    (None, True, 1, False),
    (None, [1, [2]], [1, [2]], True),
    (None, [2, 1], [1, 2], False),
    (None, {"a": 1}, {"a": 1}, True),
    (None, {"a": 1}, {"a": 1, "b": 2}, False),
    (None, "1", 1, False),
    (None, None, False, False),
    (None, 0.1 + 0.2, 0.3, False),
    (None, 10**30, 10**30 + 1, False),
    (None, {"__set__": [1, 2]}, [1, 2], False),
    ("floats", [0.1 + 0.2, "x"], [0.3, "x"], True),
    ("floats", [0.31], [0.3], False),
    ("floats", True, 1, False),
    ("unordered", [2, 1, 1], [1, 2, 1], True),
    ("unordered", [2, 1], [1, 1], False),
    ("unordered", {"__set__": [2, 1]}, [1, 2], True),
    ("unordered", [[2, 1], [3]], [[3], [1, 2]], False),
    ({"kind": "unordered", "nested": True}, [[2, 1], [3]], [[3], [1, 2]], True),
    ("unordered", [True], [1], False),
]


@pytest.mark.parametrize("checker, value, expected, same", VALUES)
def test_values(checker, value, expected, same):
    assert checkers.same_value(checkers.parse(checker), value, expected) is same


@pytest.mark.parametrize(
    "declared", ["any", {"kind": "floats", "tol": 1}, {"kind": "custom"}, {"code": "x"}, {"kind": "floats", "rel": 2}]
)
def test_bad_checkers(declared):
    with pytest.raises(ValueError, match="checker"):
        checkers.parse(declared)
