"""The math grader end to end: extraction, cheap paths, workers and limits, and the labelled public sets."""

import json
import os
from pathlib import Path

import pytest

from stratos_jax.grading import GradingConfig, MathConfig, grade
from stratos_jax.grading.extract import extract_answer
from stratos_jax.types import UserError
from tests.helpers import test_data_dir

ALL = MathConfig().fallbacks
PATIENT = GradingConfig(math=MathConfig(wall_seconds=120))  # for verdicts that a slow machine must not change


def verdict(gold, answer, config=None, **extra):
    (found,) = grade("math", [{"id": "1", "gold": gold, "answer": answer, **extra}], config)
    return found


def test_order_and_kinds_of_verdict():
    records = [
        {"id": "a", "gold": "1/2", "response": r"So it is \boxed{\frac12}."},
        {"id": "b", "gold": "7", "response": r"\boxed{8}"},
        {"id": "c", "gold": "7", "response": r"\boxed{7} and then \boxed{8"},
        {"id": "d", "gold": "7", "response": r"\boxed{7}"},
        {"id": "e", "gold": "", "answer": "7"},
        {"id": "f", "gold": "7", "answer": " "},
    ]
    verdicts = list(grade("math", records, workers=2))
    assert [v.id for v in verdicts] == ["a", "b", "c", "d", "e", "f"]
    assert [v.outcome for v in verdicts] == ["right", "wrong", "wrong", "right", "unknown", "wrong"]
    assert verdicts[2].reason == "math.no_answer.unterminated_box" and verdicts[4].reason == "unknown.gold_empty"
    assert verdicts[0].extracted == r"\frac12"


@pytest.mark.parametrize("record", [{"id": "1", "gold": "7"}, {"id": "1", "answer": "7"},
                                    {"id": "1", "gold": "7", "answer": "7", "response": "7"}])  # fmt: skip
def test_malformed_records_are_a_users_error(record):
    with pytest.raises(UserError, match="cannot be graded"):
        list(grade("math", [record]))


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"first \boxed{1}, then \boxed{2}.", "2", "boxed"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "boxed"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}", "boxed"),
        (r"\fbox{3} ... \boxed 7 ends it", "7", "boxed"),
        (r"$x=\boxed{2}$ or $x=\boxed{3}$", "2, 3", "boxed"),
        (r"\boxed{2} is too small. So \boxed{3}", "3", "boxed"),
        (r"\boxed{4} but then \boxed{\frac{5}{", None, "unterminated_box"),
        (r"\boxed{}", None, "empty_box"),
        ("<think>It is \\boxed{5}, wait", None, "unterminated_thought"),
        ("<think>\\boxed{5}</think> \\boxed{6}", "6", "boxed"),
        ("<|begin_of_thought|>\\boxed{5}<|end_of_thought|>\n<|begin_of_solution|>\\boxed{6}", "6", "boxed"),
        ("so\n#### 1,234", "1,234", "hashes"),
        ("**Final Answer:** $\\frac{1}{2}$.", r"\frac{1}{2}", "phrase"),
        ("The answer is 42 apples. Thanks", "42 apples", "phrase"),
        ("Hence we find\n\n$x = 3$.", "x = 3", "last_math"),
        ("It makes 12 eggs in 3 days, so 36", "36", "last_number"),
        ("no idea", None, "no_answer"),
    ],
)
def test_extraction(text, answer, rule):
    found = extract_answer(text, ALL)
    assert (found.answer, found.rule) == (answer, rule)


def test_no_fallback_but_those_declared():
    assert extract_answer("The answer is 42", ()).answer is None
    assert extract_answer("#### 42", ("phrase",)).answer is None


REFUSED = [  # accepted by math-verify or by other graders in use
    ("n=2,3,4", "n=1,2,3"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"), ("2x+3y=5", "3x+2y=5"), ("y=2x+3", "y=3x+2"),
    (r"1-\frac{1}{e}", r"1+\frac{1}{e}"), ("0.5", "50"), ("50", "0.5"), (r"\frac12", r"\frac21"), ("(1,2)", "(2,1)"),
    ("(1,2)", r"\{2,1\}"), ("[1,2]", "(1,2)"), ("42", r"\text{at least } 42"), ("42", r"\text{not } 42"),
    (r"\sqrt{2}\cos(2t-\pi/4)", r"\sqrt2\cos(2t+\pi/4)"), (r"\lfloor\log_2 n\rfloor+1", r"\lceil\log_2 n\rceil"),
    ("x=5", "y=5"),
    ("f(x)=x^2+1", "f(t)=x^2+1"), ("[2,5]", "2,5"), (r"\textbf{(C) } 37", r"(C)\ 38"),
    ("12{,}345", "(12,345)"), ("1,1,2,3", "1,2,3"), (r"\text{March }15", "15"), (r"\sin 75^\circ", r"\sin 75"),
    (r"\frac34", r"\frac34\%"), ("(2,12)\\cup(12,102)", "(2,12)\\cup[12,102)"), ("52_8", "52_0"), ("k=n+1", "k=m+1"),
    (r"x=\frac{\pi}{6}+\pi k", r"y=\frac{\pi}{6}+\pi k"), ("-2,-2", "-2"), (r"\frac16", r"\frac16\approx 1.167"),
    (r"\frac{3^{200}-1}{2}", r"\sum_{k=1}^{199}3^k"), (r"0.\overline{142857}", r"0.\dot{1}5285\dot{7}"), ("20", "20{"),
    ("AB=5", "AC=5"), ("A", r"\text{A or B}"),
    (r"\text{decreasing on } (0,1)", r"\text{increasing on } (0,1)"), (r"x>3\text{ or }x<-3", r"x>3\text{ and }x<-3"),
    (r"\mathbb{Z}", r"\{n\in\mathbb{Z}: n\ge2\}"), ("e^{-t/C}", "e^{t/C}"),
    ("I(0) e^{-t}", "I(0) e^{t}"), ("a+b+c", "a+b+c+1"), (r"\frac{x^3}{3}+C", r"\frac{x^3}{3}"),
    ("2RC+R+C", "RC+R+C"), ("e^{-100}", "e^{-200}"), ("0", r"e^{-100}"), (r"\sqrt{x^2}", "x"), ("5 cm", "5 m"),
    ("a_n=2n+1", "a_{n+1}=2n+1"), (r"\{x : x^2<4\}", r"\{x : x^2\le 4\}"), ("k=n+4", "k=n+5"), ("0.64N", "0.64"),
    (r"\pi", "3.14"), (r"\frac13", "0.33"), (r"10^{10^{10^{10}}}", "10^{10}"), ("AB=6, BC=8", "AB=8, BC=6"),
]  # fmt: skip


def test_known_false_accepts_are_refused():
    records = [{"id": i, "gold": gold, "answer": answer} for i, (gold, answer) in enumerate(REFUSED)]
    accepted = [REFUSED[int(v.id)] for v in grade("math", records, PATIENT) if v.outcome == "right"]
    assert accepted == []


READ = [  # families that others miss
    ("1+2+\\cdots+n", r"\frac{n(n+1)}{2}"), (r"1+x+x^2+\cdots+x^8", r"\frac{x^9-1}{x-1}"), ("n!", r"1\cdot2\cdots n"),
    (r"\{(x,y): x+y=1\}", r"\{(t,1-t): t\in\mathbb{R}\}"), (r"\{(x,y): x+y=1\}", r"\{(a,b)\mid a+b=1\}"),
    (r"\{2,3,4,\ldots\}", r"\{n\in\mathbb{Z}: n\ge2\}"), (r"y=3\pm\sqrt{x}", "(y-3)^2=x"), (r"p\wedge q", r"q\land p"),
    (r"\neg p\vee q", r"p\to q"), (r"2.5\text{ hours}", r"2\text{ hours }30\text{ minutes}"),
    (r"3:45\text{ p.m.}", "15:45"), (r"\text{March }15", r"\text{15 March}"), ("42", r"\text{forty-two}"),
    (r"\frac34", r"\text{three quarters}"), (r"e^{i\pi/3}", r"\text{cis } 60^\circ"), ("3-4i", r"\overline{3+4i}"),
    (r"f(x)=x^2", r"f: x \mapsto x^2"), ("a_n=2^n", "a_k=2^k"), ("(0,\\infty)", r"\mathbb{R}^+"),
    (r"\{1,3,5\}", r"\{2k+1: k=0,1,2\}"), (r"\{3k: k\in\mathbb{Z}\}", r"\text{all multiples of } 3"),
    (r"\begin{pmatrix}2\\4\end{pmatrix}", "2(1,2)"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]"),
    (r"x = (-1)^n\frac{\pi}{6}+n\pi", r"x=\frac{\pi}{6}+2k\pi \text{ or } x=\frac{5\pi}{6}+2k\pi"),
]  # fmt: skip


def test_families_that_others_miss_are_read():
    records = [{"id": i, "gold": gold, "answer": answer} for i, (gold, answer) in enumerate(READ)]
    refused = [(READ[int(v.id)], v.reason) for v in grade("math", records, PATIENT) if v.outcome != "right"]
    assert refused == []


ASKED = [  # gold, answer, problem, outcome
    ("321", "321_6", "Write the number in base 6.", "right"), ("321", "321_7", "Write the number in base 6.", "wrong"),
    ("42", r"42\%", "How many apples are there?", "wrong"), ("42", r"42\%", "What percent of them are red?", "right"),
    ("10:30", "1/3", "At what time do they meet?", "wrong"), ("1,2,3", "3,2,1", "", "right"),
    (r"n\ge 5", "n>4", "Find all positive integers $n$", "right"), (r"n\ge 5", "n>4", "", "wrong"),
    ("1,2,3", "3,2,1", "List the numbers in increasing order.", "wrong"), ("2.4", r"\sqrt{6}", "", "wrong"),
    ("2.4", r"\sqrt{6}", "Round to one decimal place.", "right"),
    ("1.6", r"16\text{ mm}", "How wide is it, in cm?", "right"),
    ("16", r"16\text{ kg}", "How wide is it, in cm?", "wrong"),
    ("64", r"64\text{ inches}", "What is the area in square inches?", "wrong"),
    (r"\text{Bob, Ann, Al}", r"\text{Al, Ann, Bob}", "List them in order.", "wrong"),
    (r"\text{Bob, Ann, Al}", r"\text{Al, Ann, Bob}", "Who wins?", "right"),
]  # fmt: skip


def test_what_the_problem_asks_decides():
    records = [{"id": i, "gold": gold, "answer": answer, "problem": problem}
               for i, (gold, answer, problem, _) in enumerate(ASKED)]  # fmt: skip
    verdicts = grade("math", records, PATIENT)
    assert [(*row[:3], v.outcome) for row, v in zip(ASKED, verdicts)] == ASKED


def test_declared_precision():
    assert verdict(r"7\times10^{35}", r"7.1\cdot10^{35}", precision=1e34).outcome == "right"
    assert verdict(r"7\times10^{35}", r"7.1\cdot10^{35}", precision=[1e33]).outcome == "wrong"
    assert verdict("1, 5", "5.05, 1.001", precision=[1e-2, 1e-1]).outcome == "right"
    assert verdict("1, 5", "5.05, 1.05", precision=[1e-2, 1e-1]).outcome == "wrong"


def hard_pairs(half):
    lines = (Path(__file__).parent / "hard_pairs.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["half"] == half]


@pytest.mark.parametrize("half", ["tune", "held", "late", "fresh"])
def test_hard_pairs(half):
    rows = hard_pairs(half)
    verdicts = list(grade("math", rows, PATIENT))
    rights = [v for row, v in zip(rows, verdicts) if row["label"] == "right"]
    accepted = [
        (r["gold"], r["answer"]) for r, v in zip(rows, verdicts) if r["label"] == "wrong" and v.outcome == "right"
    ]
    assert sum(v.outcome == "right" for v in rights) / len(rights) >= 0.97
    assert accepted == []


# --- workers --------------------------------------------------------------------------------------------------------

POISON = [(r"\sum_{n=1}^{10^9} n^n", "7"), ("3", r"\prod_{k=1}^{\infty} k")]


def test_a_poison_pair_costs_its_limit_and_nothing_else():
    config = GradingConfig(math=MathConfig(wall_seconds=2))  # on a slow machine an easy pair must be done in it
    records = [{"id": i, "gold": "1/2", "answer": "0.5"} for i in range(6)]
    for place, (gold, answer) in zip((1, 3), POISON):
        records[place] = {"id": place, "gold": gold, "answer": answer}
    verdicts = list(grade("math", records, config))
    assert [v.outcome for v in verdicts] == ["right", "unknown", "right", "unknown", "right", "right"]
    assert {verdicts[1].reason, verdicts[3].reason} == {"unknown.timeout"}
    assert all(verdicts[i].seconds >= 2 for i in (1, 3))


TOWER, FACTORIAL = r"9^{9^{9^{9}}}", "(10^9)!"
PROVED = [
    (TOWER, "7"), ("7", TOWER), (TOWER, r"9^{9^{9^{8}}}"), (FACTORIAL, "10^{9}"), (r"\frac{3}{7}", FACTORIAL),
    (r"(10^{10})!", r"(10^{9})!"), (TOWER, FACTORIAL), ("-2", TOWER), (r"\sqrt{2}", TOWER), (TOWER, f"-{TOWER}"),
    (r"((10!)!)!", TOWER), (r"2^{10^{10}}", r"3^{10^{10}}"), (TOWER, r"10^{10^{10^{10}}}"),
]  # fmt: skip
OPEN = [
    ("2^{4000000000}", r"4^{2000000000}"), ("1", rf"\frac{{{TOWER}}}{{{TOWER}+1}}"), ("0", rf"{TOWER}-{TOWER}"),
    (r"10^{10}", r"\log_{10}(10^{10^{10}})"), ("1", rf"({TOWER})^0"), (r"(10^9)!", r"10^9\cdot(10^9-1)!"),
    (r"2^{10^{10}}", r"2^{10^{10}}+1"), ("0", r"2^{-10^{10}}"), (rf"{TOWER}", rf"\text{{about }}{TOWER}+1"),
]  # fmt: skip


def test_towers_and_factorials_are_wrong_where_their_size_proves_it():
    records = [{"id": i, "gold": gold, "answer": answer} for i, (gold, answer) in enumerate(PROVED)]
    other = [(PROVED[int(v.id)], v) for v in grade("math", records) if v.reason != "math.different"]
    assert other == []


def test_where_size_proves_nothing_nothing_is_claimed():
    records = [{"id": i, "gold": gold, "answer": answer} for i, (gold, answer) in enumerate(OPEN)]
    verdicts = list(grade("math", records, GradingConfig(math=MathConfig(wall_seconds=3))))
    assert [(OPEN[int(v.id)], v) for v in verdicts if v.outcome == "wrong"] == []
    assert verdicts[0].reason == "unknown.too_large"


def test_a_folder_with_a_math_py_of_its_own_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "math.py").write_text("raise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path)
    assert verdict(r"\frac12", "0.5").reason == "math.tree"


def test_megabytes_and_deep_nesting_are_never_right_and_cost_their_limit():
    texts = [r"\frac{" * 150_000, "{" * 500_000 + "}" * 500_000, "1" * 1_000_000, "(" * 3_000, "-" * 7_000, "x" * 7_000]
    records = [{"id": i, "gold": "5", "answer": text} for i, text in enumerate([*texts, "5.0"])]
    *long, plain = grade("math", records, GradingConfig(math=MathConfig(wall_seconds=2)))
    assert plain.outcome == "right" and not [v for v in long if v.outcome == "right" or v.seconds > 60]


def test_a_worker_without_memory_is_unknown_and_replaced():
    config = GradingConfig(math=MathConfig(memory_mb=20))  # not even an interpreter fits
    records = [{"id": i, "gold": r"\frac12", "answer": "0.5"} for i in range(2)]
    assert [v.reason for v in grade("math", records, config)] == ["unknown.worker_died"] * 2


def test_no_worker_outlives_its_generator():
    records = ({"id": i, "gold": r"\frac12", "answer": "0.5"} for i in range(100))
    verdicts = grade("math", records, workers=2)
    next(verdicts)
    children = _children()
    assert children
    verdicts.close()
    assert not (children & _children())


def _children():
    tasks = Path(f"/proc/{os.getpid()}/task")
    listed = (task / "children" for task in tasks.iterdir())
    return {int(pid) for path in listed if path.exists() for pid in path.read_text().split()}


def test_workers_do_not_change_verdicts():
    rows = hard_pairs("tune")[:60]
    one, two = ([(v.id, v.outcome, v.reason) for v in grade("math", rows, PATIENT, workers=n)] for n in (1, 2))
    assert one == two


# --- public sets ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(test_data_dir() is None, reason="the public data is not here")
def test_labelled_public_sets():
    from stratos_jax.grading import scorecard

    cot = scorecard.MATH_SETS["verifier_math_cot_100"](test_data_dir())
    verdicts = list(grade("math", [p.record for p in cot], PATIENT))
    assert sum(v.outcome == "right" for p, v in zip(cot, verdicts) if p.right) >= 727
    accepted = [p.record["gold"] for p, v in zip(cot, verdicts) if v.outcome == "right" and not p.right]
    assert accepted == ["10{,}000"]  # the label is wrong: the response says 10000
    olympiad = scorecard.MATH_SETS["verifier_olympiadbench"](test_data_dir())
    verdicts = list(grade("math", [p.record for p in olympiad], PATIENT))
    assert [v.outcome == "right" for v in verdicts] == [p.right for p in olympiad]


@pytest.mark.skipif(test_data_dir() is None, reason="the public data is not here")
@pytest.mark.parametrize("name", ["math500", "aime24", "aime25", "amc23", "gsm8k_test", "olympiadbench", "minerva"])
def test_golds_are_right_against_themselves_and_no_other(name):
    from stratos_jax.grading import scorecard

    pairs = scorecard.MATH_SETS[name](test_data_dir())
    verdicts = list(grade("math", [p.record for p in pairs], PATIENT))
    assert [p.record["gold"] for p, v in zip(pairs, verdicts) if p.right and v.outcome != "right"] == []
    assert [p.record for p, v in zip(pairs, verdicts) if not p.right and v.outcome == "right"] == []
    assert sum(v.outcome == "unknown" for v in verdicts) <= 0.005 * len(pairs)
