"""Heavy rows: a batch of few rows whose texts or other columns fill a whole upload."""

import concurrent.futures
import contextlib
import re
import uuid
from pathlib import Path

import pytest

from support.files import stored
from support.memory import forget_peak, peak_bytes
from support.stack import Account, Stack
from support.waiting import until
from valence_common import keyring
from valence_common.problems import TooManyRequests
from valence_inference.resources import InferenceResources
from valence_inference.settings import Settings

PAGE = Path(__file__).parents[3] / "docs/batches.md"
ROWS = 1_000
CELL = "x" * 30_000
"""A thousand of these are the largest upload."""

LONGEST_TEXT = 10_000
FULL_CHUNK = 18
"""This many of the longest texts, at three bytes per character, end a chunk early."""

MOST_GROWTH = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def owner(stack: Stack) -> Account:
    return stack.account()


@pytest.fixture(scope="module")
def heavy(owner: Account, database_url: str) -> str:
    """A file of a thousand rows with a long second column."""
    return stored(
        database_url,
        owner.id,
        [f"text {n}" for n in range(ROWS)],
        rows=[[CELL]] * ROWS,
        sizes=[16] * 62,
        format="csv",
        columns=["text", "more"],
        text_column=0,
    )


def pid_of(stack: Stack) -> int:
    return stack.running("inference")[0].pid


def test_pages_of_heavy_rows_are_short(stack: Stack, owner: Account, heavy: str) -> None:
    """A page ends early instead of holding the whole batch in memory; all rows are returned."""
    url = f"/api/v1/sentiment/task/{heavy}/results?limit=1000"
    before, found, cursor = forget_peak(pid_of(stack)), [], "&cursor=0"
    while cursor:
        page = stack.get(url + cursor, owner).json()
        found += [(item["index"], len(item["row"]["more"])) for item in page["items"]]
        following = page["next_cursor"]
        cursor = "" if following is None else f"&cursor={following}"
    assert found == [(n, len(CELL)) for n in range(ROWS)]
    assert peak_bytes(pid_of(stack)) - before <= MOST_GROWTH


def test_status_reads_no_other_columns(stack: Stack, owner: Account, heavy: str) -> None:
    """The status has no other columns, so concurrent requests take no memory for them."""
    before = forget_peak(pid_of(stack))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(stack.task, owner, heavy) for _ in range(4)]
        assert {ROWS} == {len(each.result()["results"]) for each in asked}
    assert peak_bytes(pid_of(stack)) - before <= MOST_GROWTH


def test_status_brings_no_heavy_texts(stack: Stack, owner: Account, database_url: str) -> None:
    """A few texts can be the largest upload: the status has all results or none, in no memory."""
    texts = [f"{n} ".ljust(LONGEST_TEXT, "字") for n in range(ROWS)]
    heavy = stored(database_url, owner.id, texts, sizes=[FULL_CHUNK] * (ROWS // FULL_CHUNK))
    before = forget_peak(pid_of(stack))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(stack.task, owner, heavy) for _ in range(8)]
        assert {("completed", ROWS, None)} == {
            (task["status"], task["done"], task["results"])
            for task in (each.result() for each in asked)
        }
    assert peak_bytes(pid_of(stack)) - before <= MOST_GROWTH
    few = stored(database_url, owner.id, texts[:FULL_CHUNK])
    assert texts[:FULL_CHUNK] == [row["text"] for row in stack.task(owner, few)["results"]]


def test_pages_of_heavy_texts_are_short(stack: Stack, owner: Account, database_url: str) -> None:
    """A page of the longest texts ends early; all texts are returned."""
    texts = [f"{n} ".ljust(LONGEST_TEXT, "字") for n in range(200)]
    heavy = stored(database_url, owner.id, texts, sizes=[FULL_CHUNK] * (200 // FULL_CHUNK))
    url, found, cursor = f"/api/v1/sentiment/task/{heavy}/results?limit=1000", [], 0
    while cursor is not None:
        page = stack.get(f"{url}&cursor={cursor}", owner)
        assert len(page.content) <= 2 * 1024 * 1024
        found += [item["text"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
    assert texts == found


def test_streams_of_results_are_bounded(stack: Stack, owner: Account, heavy: str) -> None:
    """A user can have two at a time; the third gets 429, until one is closed."""
    url = f"/api/v1/sentiment/task/{heavy}/results?format="
    with contextlib.ExitStack() as exits:
        streams = [
            exits.enter_context(
                stack.client.stream("GET", stack.url(url + form), headers=owner.headers)
            )
            for form in ("ndjson", "csv")
        ]
        assert [200, 200] == [stream.status_code for stream in streams]
        for form in ("ndjson", "csv"):
            refused = stack.get(url + form, owner)
            assert 429 == refused.status_code
            assert int(refused.headers["retry-after"]) > 0
        assert 200 == stack.get(url + "json", owner).status_code
        other = stack.account()
        assert 404 == stack.get(url + "csv", other).status_code
        streams[0].close()
        until(lambda: _begins(stack, owner, url + "csv"), timeout=15)


def _begins(stack: Stack, account: Account, url: str) -> bool:
    with stack.client.stream("GET", stack.url(url), headers=account.headers) as answer:
        return answer.status_code == 200


def test_a_process_has_sixteen_streams_of_results(tmp_path: Path) -> None:
    """In total, as documented: of nine users with two each, the last gets none."""
    resources = inference_resources(tmp_path)
    users = [uuid.uuid4() for _ in range(9)]
    with contextlib.ExitStack() as exits:
        for user in users[:8] * 2:
            exits.enter_context(resources.download_limit.slot(user))
        with pytest.raises(TooManyRequests), resources.download_limit.slot(users[8]):
            pass
    page = PAGE.read_text("utf-8")
    [said] = re.findall(
        r"One user may read (\w+) streams at a time, and all users together (\d+)", page
    )
    assert ("two", "16") == said


def inference_resources(folder: Path) -> InferenceResources:
    """The resources of the service; none connects before its first use."""
    keys = folder / "keyring.json"
    keys.write_bytes(keyring.generate())
    return InferenceResources(
        Settings(
            database_url="postgresql://u:p@127.0.0.1:1/d",
            redis_url="redis://127.0.0.1:1",
            jwt_keyring_file=keys,
        )
    )
