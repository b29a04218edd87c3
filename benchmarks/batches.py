"""A batch of 100,000 short texts beside plain Celery, in one run: `python benchmarks/batches.py`.

One worker with one child, pinned to core 0 with nothing else; Postgres, Redis, the API and this
client share core 1. Postgres keeps its durable defaults. Celery moves the same texts through the
same model twice: one task a text (fewer texts, since it is slow), and a chord of chunks of 500.
Its results are gone with its Redis; ours are rows, with a history, before they count.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from support.stack import Service, Stack  # noqa: E402 - the tests' own way to run services
from support.waiting import until  # noqa: E402
from valence.local import migrations  # noqa: E402
from valence.local.postgres import Postgres  # noqa: E402
from valence.local.valkey import Valkey  # noqa: E402

TEXTS = 100_000
ONE_BY_ONE = 5_000
CHUNK = 500
ROUNDS = 3
WORKER_CORE, OTHER_CORE = 0, 1
MEBIBYTE = 2**20
SAMPLE = ROOT / "tests" / "data" / "sample.tsv"


def short_texts(count: int) -> list[str]:
    """Sample texts of 6 to 14 words, again and again, each with its number."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()[1:]
    short = [t for line in lines if 6 <= len((t := line.partition("\t")[2]).split()) <= 14]
    return [f"{n} {short[n % len(short)]}" for n in range(count)]


def tree(pid: int) -> list[psutil.Process]:
    """A process with its children."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def pin(pid: int, core: int) -> None:
    """Keep a process, its threads and its children on one core."""
    for process in tree(pid):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with its children."""
    return sum(p.cpu_times().user + p.cpu_times().system for p in tree(pid))


def peak(pid: int, *, forget: bool = False) -> float:
    """The most memory that a process held since it was last forgotten, in MiB."""
    if forget:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def proportional(pid: int) -> float:
    """Memory of a process with its children, shared pages counted once, in MiB."""
    return sum(p.memory_full_info().pss for p in tree(pid)) / MEBIBYTE


def ours(stack: Stack, inference: Service, worker: Service, texts: list[str]) -> None:
    """Submit, wait, tell; one round of warming before the rounds that count."""
    account = stack.account()
    body = sum(len(text) + 3 for text in texts) / MEBIBYTE
    accepted, completed, grown, cpu = [], [], [], []
    for n in range(ROUNDS + 1):
        before, spent = peak(inference.pid, forget=True), cpu_seconds(worker.pid)
        started = time.perf_counter()
        task_id = stack.submit(account, texts)
        took = time.perf_counter() - started
        until(
            lambda task_id=task_id: stack.task(account, task_id)["finished_at"],
            within=120,
            every=0.05,
        )
        if n == 0:
            continue
        accepted.append(took)
        completed.append(time.perf_counter() - started)
        grown.append(peak(inference.pid) - before)
        cpu.append(cpu_seconds(worker.pid) - spent)
    print(
        f"valence, {len(texts):,} texts: 202 after {statistics.median(accepted):.2f} s,"
        f" completed after {statistics.median(completed):.2f} s"
        f" {[round(each, 2) for each in completed]},"
        f" {len(texts) / statistics.median(completed):,.0f} texts/s;"
        f" worker {statistics.median(cpu):.2f} CPU-s, {proportional(worker.pid):.0f} MiB;"
        f" API grew by {statistics.median(grown):.1f} MiB"
        f" = {statistics.median(grown) / body:.1f} x the body of {body:.1f} MiB"
    )


@contextlib.contextmanager
def celery_worker(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A plain Celery worker with one child, on the worker's core."""
    command = ["-m", "celery", "-A", "plain_celery", "worker", "-c", "1", "--loglevel", "WARNING"]
    with (folder / "celery.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT / "benchmarks",
            env=os.environ | {"CELERY_URL": url},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def theirs(url: str, folder: Path, texts: list[str]) -> None:
    """One task a text, and a chord of chunks; timed from the first message to the last result."""
    os.environ["CELERY_URL"] = url
    from celery import chord, group  # noqa: PLC0415 - reads the URL when it is imported
    from plain_celery import count, score  # noqa: PLC0415

    with celery_worker(url, folder) as process:
        score.delay(["first"]).get(timeout=60)
        pin(process.pid, WORKER_CORE)
        some = texts[:ONE_BY_ONE]
        spent, started = cpu_seconds(process.pid), time.perf_counter()
        group(score.s([text]) for text in some).apply_async().get(timeout=600)
        report("celery, one task a text", some, started, cpu_seconds(process.pid) - spent)
        for _ in range(2):
            spent, started = cpu_seconds(process.pid), time.perf_counter()
            parts = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
            chorded = chord((score.s(part) for part in parts), count.s()).apply_async()
            assert chorded.get(timeout=600) == len(texts)
        report(
            f"celery, a chord of chunks of {CHUNK}",
            texts,
            started,
            cpu_seconds(process.pid) - spent,
        )
        print(f"  its worker: {proportional(process.pid):.0f} MiB")


def report(what: str, texts: list[str], started: float, cpu: float) -> None:
    """One line of theirs."""
    took = time.perf_counter() - started
    print(
        f"{what}, {len(texts):,} texts: {took:.2f} s, {len(texts) / took:,.0f} texts/s;"
        f" worker {cpu:.2f} CPU-s"
    )


def main() -> None:
    """Start everything, pin it, measure both."""
    os.sched_setaffinity(0, {OTHER_CORE})
    texts = short_texts(TEXTS)
    with contextlib.ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="valence-bench-")))
        valkey = exits.enter_context(Valkey(folder / "valkey"))
        postgres = exits.enter_context(Postgres(folder / "postgres"))
        migrations.upgrade(postgres.url())
        stack = Stack(folder / "stack", postgres.url(), valkey.url())
        exits.callback(stack.close)
        stack.start("auth")
        inference = stack.start("inference")
        worker = stack.start("batch_worker", concurrency=1)
        pin(worker.pid, WORKER_CORE)
        ours(stack, inference, worker, texts)
        worker.stop()
        theirs(valkey.url(), folder, texts)


if __name__ == "__main__":
    main()
