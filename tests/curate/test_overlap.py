"""Duplicates and contamination: planted ones are found, different questions stay."""

from stratos_jax.curate import overlap
from stratos_jax.types import Problem


def problem(name, question):
    return Problem(id=name, source="test", kind="math", question=question, gold="1")


LONG = "Find the number of ordered pairs of positive integers that satisfy the equation and whose sum is less than {}"


def test_exact_and_near_duplicates_are_found_and_the_first_stays():
    problems = [
        problem("a", LONG.format(100)),
        problem("b", "  " + LONG.format(100).upper()),
        problem("c", LONG.format(100) + " exactly"),
        problem("d", "What is the area of a circle with a radius of three?"),
    ]
    hits = {hit.problem_id: hit for hit in overlap.duplicates(problems, 0.8, 5)}
    assert {name: (hit.other_id, hit.how) for name, hit in hits.items()} == {"b": ("a", "exact"), "c": ("a", "near")}


def test_near_duplicates_agree_with_comparing_all_pairs():
    problems = [
        problem(str(i), " ".join(str((i // 3) * 50 + j + (j == 20) * (i % 3) * 997) for j in range(40)))
        for i in range(60)
    ]
    hits = overlap.duplicates(problems, 0.6, 5)
    sets = [overlap._shingles(p.question, 5) for p in problems]
    wanted = set()
    for right in range(60):
        for left in range(right):
            likeness = len(sets[left] & sets[right]) / len(sets[left] | sets[right])
            if likeness >= 0.6 and str(left) not in wanted:
                wanted.add(str(right))
                break
    assert {hit.problem_id for hit in hits} == wanted and len(wanted) == 40


def test_signs_count():
    problems = [problem("a", "1 + 2"), problem("b", "1 - 2")]
    assert not overlap.duplicates(problems, 0.9, 5)
    assert not overlap.contaminated(problems[:1], problems[1:], 8, 10)


def test_a_held_out_question_is_found_in_other_typesetting():
    held_out = [problem("test", "Let $x$ be a real number such that $x^2 + 3x = 10$. Find all possible values.")]
    copy = problem("copy", "let x be a REAL number, such that x^2+3x = 10; find all")
    other = problem("other", "Let y be an integer such that y^3 = 8. Find y.")
    hits = overlap.contaminated([copy, other], held_out, 8, 10)
    assert [(hit.problem_id, hit.other_id, hit.how) for hit in hits] == [("copy", "test", "ngram")]
    assert hits[0].shared in " ".join(overlap.words_of(copy.question))


def test_what_all_questions_share_is_a_template_and_no_evidence():
    template = "A shop sells apples and pears at the same price. How much do {} apples and {} pears cost"
    problems = [problem(str(i), template.format(i, i + 1)) for i in range(40)]
    held_out = [problem("test", template.format(90, 95))]
    assert not overlap.contaminated(problems, held_out, 8, 10)
    assert len(overlap.contaminated(problems[:5], held_out, 8, 10)) == 5  # too few to call it a template
