"""An installation that does not store texts: it scores them, and no table holds them afterwards."""

import hashlib
from collections.abc import Iterator

import pytest

from support import faulty_model
from support.rows import query
from support.stack import Account, Stack
from support.waiting import until
from valence_common.models import Base

FORGET = {"store_texts": "false"}
TEXTS = ["The heron's nest is good", "Der Wälzer taugt nichts 🙁"]


@pytest.fixture(scope="module")
def stack(shared_web: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services that do not store texts; a text can make the worker's model fail."""
    model = faulty_model.write(tmp_path_factory.mktemp("model") / "odd-1")
    worker = {"model_dir": model, "concurrency": 1, "sweep_seconds": 0.3, "max_attempts": 1}
    with shared_web.beside(inference=FORGET, batch_worker=worker | FORGET) as stack:
        yield stack


def tables_containing(stack: Stack, words: str) -> list[str]:
    """Return the tables that contain these words in any column of any row."""
    like = {"words": f"%{words}%"}
    return [
        name
        for name in Base.metadata.tables
        if query(stack.database_url, f"SELECT 1 FROM {name} AS t WHERE t::text LIKE :words", **like)
    ]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_history_has_the_hash_instead_of_the_text(stack: Stack, account: Account) -> None:
    """The response contains the text as it was sent; the history contains its hash."""
    for text in TEXTS:
        answer = stack.post("/api/v1/sentiment/analyze", account, json={"text": text})
        assert (text, True) == (answer.json()["text"], answer.json()["recorded"])
    items = stack.get("/api/v1/sentiment/history", account).json()["items"]
    assert [(None, sha256(text)) for text in reversed(TEXTS)] == [
        (item["text"], item["text_sha256"]) for item in items
    ]
    found = stack.get("/api/v1/sentiment/history?q=heron", account).json()
    assert {"items": [], "next_cursor": None} == found
    assert [] == tables_containing(stack, "heron")


def test_texts_of_a_batch_are_deleted_once_scored(stack: Stack, account: Account) -> None:
    """Results keep their indexes; a text that could not be scored is deleted as well."""
    texts = [*TEXTS, f"The heron's {faulty_model.RAISES}", "a good fourth"]
    task = stack.finish(account, stack.submit(account, texts))
    assert "completed_with_errors" == task["status"]
    assert [
        (0, None, "positive"),
        (1, None, "negative"),
        (2, None, None),
        (3, None, "positive"),
    ] == [(result["index"], result["text"], result["sentiment"]) for result in task["results"]]
    assert [] == tables_containing(stack, "heron")
    items = stack.get("/api/v1/sentiment/history", account).json()["items"]
    scored = [text for text in texts if faulty_model.RAISES not in text]
    assert sorted(map(sha256, scored)) == sorted(item["text_sha256"] for item in items)


def test_data_export_says_that_there_is_no_text(stack: Stack, account: Account) -> None:
    """The data export has the hashes of the history, and rows of batches without texts."""
    stack.finish(account, stack.submit(account, TEXTS))
    document = stack.get("/api/v1/users/me/export", account).json()
    assert {(None, sha256(text)) for text in TEXTS} == {
        (item["text"], item["text_sha256"]) for item in document["history"]
    }
    assert [(0, None, "odd@1"), (1, None, "odd@1")] == [
        (row["index"], row["text"], row["model"]) for row in document["batch_results"]
    ]


def test_a_pending_batch_has_its_texts(stack: Stack, account: Account) -> None:
    """Texts stay in Postgres until they are scored, so a crash loses none."""
    worker = stack.running("batch_worker")[0]
    worker.kill()
    task = stack.submit(account, TEXTS)
    assert ["batch_chunks"] == tables_containing(stack, "heron")
    document = stack.get("/api/v1/users/me/export", account).json()
    assert TEXTS == [row["text"] for row in document["batch_results"]]
    stack.start("batch_worker", concurrency=1, sweep_seconds=0.3, **FORGET)
    until(lambda: stack.task(account, task)["status"] == "completed", timeout=30)
    assert [] == tables_containing(stack, "heron")


def test_by_default_texts_are_stored_and_not_hashed(stack: Stack) -> None:
    """The same database with the default setting."""
    url = stack.database_url
    remembering = stack.start("inference")
    account = stack.account()
    with_text = {"json": {"text": TEXTS[0]}, "headers": account.headers}
    answer = stack.client.post(f"{remembering.url}/api/v1/sentiment/analyze", **with_text)
    assert 200 == answer.status_code
    rows = query(url, "SELECT text, text_hash FROM predictions WHERE user_id = :id", id=account.id)
    assert [(TEXTS[0], None)] == rows
