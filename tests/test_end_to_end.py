"""The thread that everything hangs on, through the three services as a user goes it."""

from pathlib import Path

import pytest

from support.required import data_file
from support.stack import Stack
from valence_ml import DEFAULT_MODEL, load
from valence_ml.data import read
from valence_ml.evaluation import evaluate

SAMPLE = Path(__file__).parent / "data/sample.tsv"


def test_register_login_analyze_batch_history(stack: Stack) -> None:
    """From nothing to a history that pages through a thousand results without repeat or gap."""
    account = stack.account()
    me = stack.get("/api/v1/users/me", account)
    assert (200, account.username) == (me.status_code, me.json()["username"])

    for text, sentiment in (
        ("I love this product!", "positive"),
        ("This is terrible, very disappointed.", "negative"),
    ):
        answer = stack.post("/api/v1/sentiment/analyze", account, json={"text": text})
        assert (200, sentiment) == (answer.status_code, answer.json()["sentiment"])

    texts = [f"text number {n} is {'good' if n % 2 else 'bad'}" for n in range(1000)]
    task = stack.finish(account, stack.submit(account, texts))
    assert ("completed", 1000, 1000, 0, 1.0) == tuple(
        task[k] for k in ("status", "total", "done", "failed", "progress")
    )
    assert list(enumerate(texts)) == [(row["index"], row["text"]) for row in task["results"]]

    seen, cursor = [], None
    while True:
        query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = stack.get("/api/v1/sentiment/history", account, params=query).json()
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert 1002 == len({item["id"] for item in seen}) == len(seen)
    assert set(texts) < {item["text"] for item in seen}
    times = [(item["created_at"], item["id"]) for item in seen]
    assert sorted(times, reverse=True) == times


@pytest.mark.parametrize("name", [SAMPLE.name, "sst2.dev.tsv.gz"])
def test_accuracy_through_the_api_is_that_of_the_evaluation(stack: Stack, name: str) -> None:
    """What users get is as good as `python -m valence_ml evaluate` says."""
    path = SAMPLE if name == SAMPLE.name else data_file(name)
    examples = read(path)
    account = stack.account()
    task = stack.finish(account, stack.submit(account, examples.texts))
    answers = [result["sentiment"] == "positive" for result in task["results"]]
    right = sum(a == bool(label) for a, label in zip(answers, examples.labels, strict=True))
    print(f"\n{path.name}: {right} of {len(answers)} right through the API")
    metric = evaluate(load(DEFAULT_MODEL), path.name, examples)
    assert metric.accuracy == round(right / len(answers), 4)
