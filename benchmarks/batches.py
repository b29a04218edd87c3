"""A batch of 100,000 short texts compared with plain Celery: `python benchmarks/batches.py`.

One worker with one child is pinned to core 0; Postgres, Redis, the API and this client share core
1. Postgres keeps its durable defaults. Celery sends the same texts through the same model in two
ways: one task per text (fewer texts, since it is slow), and a chord of chunks of 500. Celery's
results are in Redis only; Valence's are rows in Postgres, with a history. The figures are medians
of the rounds; the last lines are the ratios of the same run.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
    """Return sample texts of 6 to 14 words, repeated, each with its number."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()[1:]
    short = [t for line in lines if 6 <= len((t := line.partition("\t")[2]).split()) <= 14]
    return [f"{n} {short[n % len(short)]}" for n in range(count)]


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and its children."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def pin(pid: int, core: int) -> None:
    """Keep a process, its threads and its children on one core."""
    for process in tree(pid):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {core})


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process with its children."""
    return sum(p.cpu_times().user + p.cpu_times().system for p in tree(pid))


def peak(pid: int, *, reset: bool = False) -> float:
    """Return the peak memory of a process since its last reset, in MiB."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def proportional(pid: int) -> float:
    """Return the memory of a process with its children in MiB; shared pages count once."""
    return sum(p.memory_full_info().pss for p in tree(pid)) / MEBIBYTE


def measure_valence(
    stack: Stack, inference: Service, worker: Service, texts: list[str]
) -> list[float]:
    """Return the seconds from submission to completion, after one round that does not count."""
    account = stack.account()
    body = sum(len(text) + 3 for text in texts) / MEBIBYTE
    accepted, completed, grown, cpu = [], [], [], []
    for n in range(ROUNDS + 1):
        before, spent = peak(inference.pid, reset=True), cpu_seconds(worker.pid)
        started = time.perf_counter()
        task_id = stack.submit(account, texts)
        took = time.perf_counter() - started
        until(
            lambda task_id=task_id: stack.task(account, task_id)["finished_at"],
            timeout=120,
            interval=0.05,
        )
        if n == 0:
            continue
        accepted.append(took)
        completed.append(time.perf_counter() - started)
        grown.append(peak(inference.pid) - before)
        cpu.append(cpu_seconds(worker.pid) - spent)
    report("valence", texts, completed, cpu)
    print(
        f"  202 after {statistics.median(accepted):.2f} s;"
        f" worker {proportional(worker.pid):.0f} MiB;"
        f" API grew by {statistics.median(grown):.1f} MiB"
        f" = {statistics.median(grown) / body:.1f} x the body of {body:.1f} MiB"
    )
    return completed


@contextlib.contextmanager
def celery_worker(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a plain Celery worker with one child."""
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


def measure_celery(url: str, folder: Path, texts: list[str]) -> tuple[list[float], list[float]]:
    """Return the seconds of one task per text and of a chord, from first message to last result."""
    os.environ["CELERY_URL"] = url
    from celery import chord, group  # noqa: PLC0415 - reads the URL when it is imported
    from plain_celery import count, score  # noqa: PLC0415

    def one_by_one() -> None:
        group(score.s([text]) for text in some).apply_async().get(timeout=600)

    def chunked() -> None:
        parts = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
        result = chord((score.s(part) for part in parts), count.s()).apply_async()
        assert result.get(timeout=600) == len(texts)

    some = texts[:ONE_BY_ONE]
    with celery_worker(url, folder) as process:
        score.delay(["first"]).get(timeout=60)
        pin(process.pid, WORKER_CORE)
        single = repeat("celery, one task per text", some, one_by_one, process.pid)
        chorded = repeat(f"celery, a chord of chunks of {CHUNK}", texts, chunked, process.pid)
        print(f"  worker {proportional(process.pid):.0f} MiB")
    return single, chorded


def repeat(what: str, texts: list[str], run: Callable[[], None], pid: int) -> list[float]:
    """Return and print the seconds of each round, after one that does not count."""
    seconds, cpu = [], []
    for n in range(ROUNDS + 1):
        spent, started = cpu_seconds(pid), time.perf_counter()
        run()
        if n:
            seconds.append(time.perf_counter() - started)
            cpu.append(cpu_seconds(pid) - spent)
    report(what, texts, seconds, cpu)
    return seconds


def report(what: str, texts: list[str], seconds: list[float], cpu: list[float]) -> None:
    """Print one line of medians."""
    took = statistics.median(seconds)
    print(
        f"{what}, {len(texts):,} texts: {took:.2f} s {[round(each, 2) for each in seconds]},"
        f" {len(texts) / took:,.0f} texts/s; worker {statistics.median(cpu):.2f} CPU-s"
    )


def main() -> None:
    """Start everything, pin it, measure both and print the ratios."""
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
        own = statistics.median(measure_valence(stack, inference, worker, texts)) / len(texts)
        worker.stop()
        single, chorded = measure_celery(valkey.url(), folder, texts)
    print(f"valence / chord: {own / (statistics.median(chorded) / len(texts)):.2f} x the time")
    print(f"one task per text / valence: {statistics.median(single) / ONE_BY_ONE / own:.1f} x")


if __name__ == "__main__":
    main()
