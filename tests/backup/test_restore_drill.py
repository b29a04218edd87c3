"""The restore drill (case 119), and consistency of a backup under load (case 120)."""

import hashlib
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backups import Backups, refused
from support.rows import query
from support.servers import FragilePostgres
from support.stack import Account, Stack
from support.waiting import until
from valence.local import migrations

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stack(shared_web: Stack) -> Iterator[Stack]:
    """All three services, with small chunks, so that a batch takes longer."""
    shared_web.start("batch_worker", concurrency=1)
    yield shared_web
    shared_web.stop_workers()


def longest_data(dump: bytes) -> int:
    """Return the offset of the largest compressed block of a custom dump: the rows of a table."""

    def length(start: int) -> int:
        try:
            return len(zlib.decompressobj().decompress(dump[start:]))
        except zlib.error:
            return 0

    return max((match.start() for match in re.finditer(b"\x78[\x01\x9c\xda]", dump)), key=length)


@pytest.fixture
def backups(tmp_path: Path, stack: Stack) -> Iterator[Backups]:
    with Backups(tmp_path / "backups", stack.database_url) as backups:
        yield backups


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[FragilePostgres]:
    """Another server with an empty database."""
    with FragilePostgres(tmp_path / "elsewhere") as elsewhere:
        yield elsewhere


def known_job(stack: Stack) -> tuple[Account, str]:
    """Return a user and a completed batch."""
    account = stack.account()
    task_id = stack.submit(account, ["I love this product!", "This is terrible."])
    stack.finish(account, task_id)
    return account, task_id


def test_case_119_restore_drill(
    stack: Stack, backups: Backups, elsewhere: FragilePostgres, tmp_path: Path
) -> None:
    """On the restored server a known user can log in, see a known batch, and submit another."""
    account, task_id = known_job(stack)
    before = stack.task(account, task_id)
    done = backups.run("backup")
    assert (0, "") == (done.returncode, done.stderr)
    assert "was restored and compared" in done.stdout
    backups.point_at(elsewhere.url())
    restored = backups.run("restore", "latest")
    assert (0, "") == (restored.returncode, restored.stderr)
    refused(backups.run("restore", "latest"), "the database is not empty")
    migrations.upgrade(elsewhere.url())
    redis_url = stack.redis_url.removesuffix("/1") + "/2"
    there = Stack(tmp_path / "stack", elsewhere.url(), redis_url)
    shutil.copy(stack.keyring, there.keyring)
    try:
        for name in ("auth", "inference", "batch_worker"):
            there.start(name, ready=False)
        for service in there.services:
            service.wait_ready()
        assert 200 == there.login(account.username).status_code
        assert before == there.task(account, task_id)
        there.canary()
    finally:
        there.close()


@pytest.mark.faults
def test_case_119_corrupted_byte(stack: Stack, backups: Backups) -> None:
    """A wrong byte in the dump, after or before its checksum was computed, is an error."""
    known_job(stack)
    name = backups.make()
    dump, sums = backups.folder / f"{name}.dump", backups.folder / f"{name}.sha256"
    content = bytearray(dump.read_bytes())
    content[longest_data(content) + 16] ^= 0x55
    dump.write_bytes(content)
    for mode in ("verify", "restore"):
        refused(backups.run(mode, "latest"), "is corrupted: its SHA-256 does not match")
    _, others = sums.read_text().splitlines()
    sums.write_text(f"{hashlib.sha256(content).hexdigest()}  {dump.name}\n{others}\n")
    failed = backups.run("verify", "latest")
    refused(failed, "backup: the ")
    assert backups.idle()


@pytest.mark.faults
def test_case_119_another_content(stack: Stack, backups: Backups) -> None:
    """A dump that restores to other rows than those that were dumped is an error."""
    known_job(stack)
    name = backups.make()
    tables = backups.folder / f"{name}.tables"
    tables.write_text(tables.read_text().replace("users|", "users|1", 1))
    sums = backups.folder / f"{name}.sha256"
    first, _ = sums.read_text().splitlines()
    digest = hashlib.sha256(tables.read_bytes()).hexdigest()
    sums.write_text(f"{first}\n{digest}  {tables.name}\n")
    refused(backups.run("verify", name), "the restored tables differ from the dump")


@pytest.mark.faults
def test_case_119_empty_dump(backups: Backups, empty_database_url: str) -> None:
    """An empty database gives no backup, and an empty file is not a backup."""
    backups.point_at(empty_database_url)
    refused(backups.run("backup"), "the restored database has no alembic_version")
    assert [] == backups.names()
    name = "20260101T000000Z"
    for kind in ("dump", "tables"):
        (backups.folder / f"{name}.{kind}").touch()
    empty = hashlib.sha256(b"").hexdigest()
    sums = backups.folder / f"{name}.sha256"
    sums.write_text(f"{empty}  {name}.dump\n{empty}  {name}.tables\n")
    refused(backups.run("verify", name), "the dump is empty")
    sums.unlink()
    refused(backups.run("restore", name), "has no")


def test_case_119_the_alert_is_documented() -> None:
    """The page has the alert for 26 hours without success, and the restore command."""
    page = (ROOT / "docs/backup.md").read_text("utf-8")
    assert "kube_cronjob_status_last_successful_time" in page
    assert "26 * 3600" in page
    assert '["restore", "latest"]' in page


@pytest.mark.faults
def test_case_120_a_dump_under_load_is_of_one_moment(
    stack: Stack, backups: Backups, empty_database_url: str
) -> None:
    """While batches are submitted and processed, each chunk has all of its results or none."""
    account = stack.account()
    tasks = [stack.submit(account, [f"text {n}" for n in range(4000)]) for _ in range(3)]
    url = stack.database_url
    count = "SELECT count(*) FROM batch_results"
    [(before,)] = query(url, count)
    until(lambda: query(url, count)[0][0] > before, timeout=60, interval=0.01)
    backups.make()
    backups.point_at(empty_database_url)
    assert 0 == backups.run("restore", "latest").returncode
    chunks = query(
        empty_database_url,
        "SELECT chunk.state = 'done', count(result.position) = chunk.size,"
        " count(result.position) = 0 FROM batch_chunks AS chunk LEFT JOIN batch_results AS result"
        " ON result.batch_id = chunk.batch_id"
        " AND result.position BETWEEN chunk.start AND chunk.start + chunk.size - 1"
        " GROUP BY chunk.id",
    )
    assert {(True, True, False), (False, False, True)} == set(chunks)  # both kinds occur
    ended = query(
        empty_database_url,
        "SELECT finished_at IS NOT NULL, (SELECT count(*) FROM batch_results AS result"
        " WHERE result.batch_id = batches.id) = total, EXISTS (SELECT FROM audit_events"
        " WHERE subject_id = batches.id AND action = 'batch.completed') FROM batches",
    )
    assert all(finished == complete == audited for finished, complete, audited in ended)
    for task_id in tasks:
        assert "completed" == stack.finish(account, task_id)["status"]
