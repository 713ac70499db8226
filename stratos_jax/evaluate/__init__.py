"""Scores with their error: tasks are sampled, stored samples are graded, and a page shows what came out.

In: an HF folder and tasks. Out: `samples.jsonl`, `verdicts.jsonl`, `report.json`, `report.html`.
"""
