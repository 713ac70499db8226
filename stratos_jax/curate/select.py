"""Which verified traces become rows: one of each problem's right ones, from problems that repeat nothing.

In: problems, traces, verdicts, held-out problems. Out: the chosen pairs, and the funnel that led there.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from stratos_jax.curate import overlap
from stratos_jax.curate.config import SelectConfig
from stratos_jax.types import Json, Problem, Trace, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The rows' problems and traces, and what became of the rest."""

    chosen: tuple[tuple[Problem, Trace], ...]
    funnel: Mapping[str, Json]
    hits: tuple[overlap.Hit, ...]  # against held-out questions
    duplicates: tuple[overlap.Hit, ...]


def select(
    problems: Sequence[Problem],
    held_out: Sequence[Problem],
    traces: Sequence[Trace],
    verdicts: Sequence[Verdict],
    config: SelectConfig,
) -> Selection:
    """The story of the funnel, step by step."""
    outcome_of = {verdict.id: verdict.outcome for verdict in verdicts}
    right: dict[str, list[Trace]] = collections.defaultdict(list)
    for trace in traces:
        if trace.finish_reason == "stop" and outcome_of.get(trace.id) == "right":
            right[trace.problem_id].append(trace)
    hits = overlap.contaminated(problems, held_out, config.contamination_ngram, config.contamination_common)
    dirty = {hit.problem_id for hit in hits}
    clean = [p for p in problems if p.id not in dirty]
    copies = overlap.duplicates([p for p in clean if p.id in right], config.fuzzy_threshold, config.fuzzy_shingle)
    repeated = {hit.problem_id for hit in copies}
    pairs = [(p, _pick(right[p.id], config)) for p in clean if p.id in right and p.id not in repeated]
    chosen = _within_limits(pairs, config)
    finish = collections.Counter(trace.finish_reason for trace in traces)
    outcomes = collections.Counter(verdict.outcome for verdict in verdicts)
    funnel = {
        "problems": len(problems),
        "answers": len(traces),
        "answers_truncated": finish["length"],
        "answers_right": outcomes["right"],
        "answers_wrong": outcomes["wrong"],
        "answers_unknown": outcomes["unknown"],
        "problems_with_a_right_answer": len(right),
        "problems_like_a_held_out_one": len(dirty),
        "problems_repeated": len(repeated),
        "rows": len(chosen),
    }
    return Selection(chosen=tuple(chosen), funnel=funnel, hits=tuple(hits), duplicates=tuple(copies))


def _pick(traces: Sequence[Trace], config: SelectConfig) -> Trace:
    ordered = sorted(traces, key=lambda t: (t.completion_tokens or len(t.reasoning), t.sample_index))
    if config.keep == "first":
        return min(traces, key=lambda t: t.sample_index)
    return ordered[0] if config.keep == "shortest" else ordered[len(ordered) // 2]


def _within_limits(pairs: Sequence[tuple[Problem, Trace]], config: SelectConfig) -> list[tuple[Problem, Trace]]:
    limits, taken, chosen = dict(config.by_source), collections.Counter(), []
    for problem, trace in pairs:
        if taken[problem.source] < limits.get(problem.source, len(pairs)):
            taken[problem.source] += 1
            chosen.append((problem, trace))
    return chosen[: config.max_rows]
