"""Liveness: the verdict with a fake clock, and a real worker that is stuck or only waits."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from support.impatient_worker import CONSUMER_SECONDS
from support.jobs import Jobs
from support.servers import Servers
from support.stack import Service
from support.waiting import until
from valence_batch_worker import liveness
from valence_batch_worker.liveness import POLL_SECONDS, Heartbeat, Liveness

TASK_SECONDS = 60.0


class Clock:
    """A fake clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(liveness, "time", clock)
    return clock


@pytest.fixture
def parts(clock: Clock) -> Liveness:
    return Liveness(task_time_limit=TASK_SECONDS)


def advance(
    clock: Clock, parts: Liveness, seconds: float, *beating: Heartbeat, queued: int | None = 0
):
    """Advance the clock while these heartbeats beat and Redis answers or not; return `stuck()`."""
    ends = clock.now + seconds
    while clock.now < ends:
        clock.now += POLL_SECONDS
        parts.record_poll(queued)
        for heartbeat in beating:
            heartbeat.beat()
    return parts.stuck()


def test_heartbeat_is_shared_across_a_fork() -> None:
    """The parent sees a child's beat, without a message."""
    heartbeat = Heartbeat()
    before = heartbeat.last_beat()
    child = multiprocessing.get_context("fork").Process(target=heartbeat.beat)
    child.start()
    child.join()
    assert before < heartbeat.last_beat() <= time.monotonic()


def test_idle_worker_is_alive(clock: Clock, parts: Liveness) -> None:
    """Also after a day without work."""
    assert advance(clock, parts, 86_400, parts.consumer) is None


def test_silent_consumer_is_stuck_while_redis_answers(clock: Clock, parts: Liveness) -> None:
    """Once it has had the time that a reconnect may take."""
    assert advance(clock, parts, 60) is None
    assert "the consumer has been silent" in advance(clock, parts, 60)
    assert advance(clock, parts, 1, parts.consumer) is None


def test_consumer_that_waits_for_redis_is_not_stuck(clock: Clock, parts: Liveness) -> None:
    """However long the outage; the time to reconnect counts from its end."""
    assert advance(clock, parts, 3600, queued=None) is None
    assert advance(clock, parts, 60) is None
    assert advance(clock, parts, 30, queued=None) is None
    assert advance(clock, parts, 60) is None
    assert "the consumer has been silent" in advance(clock, parts, 60)


def test_consumer_is_not_stuck_without_polls(clock: Clock, parts: Liveness) -> None:
    """Without knowing that Redis answers, an outage would restart every worker."""
    advance(clock, parts, 10)
    clock.now += 3600
    assert parts.stuck() is None


def test_thread_without_progress_is_stuck(clock: Clock, parts: Liveness) -> None:
    """The timeout counts beyond the pause between its calls."""
    sweep, retention = Heartbeat(), Heartbeat()
    parts.threads.update(sweep=(sweep, 2), retention=(retention, 600))
    assert advance(clock, parts, 600, parts.consumer, sweep) is None
    assert advance(clock, parts, 290, parts.consumer, retention) is None
    assert "'sweep'" in advance(clock, parts, 30, parts.consumer, retention)


def test_worker_that_takes_no_message_is_stuck(clock: Clock, parts: Liveness) -> None:
    """Messages wait all the time, the consumer beats, and no task starts or ends."""
    assert advance(clock, parts, 170, parts.consumer, queued=16) is None
    assert advance(clock, parts, 5, parts.consumer, queued=0) is None
    assert advance(clock, parts, 170, parts.consumer, queued=16) is None
    assert "no task has started" in advance(clock, parts, 30, parts.consumer, queued=16)
    assert advance(clock, parts, 3600, parts.consumer, parts.tasks, queued=16) is None


def test_worker_that_shuts_down_is_not_stuck(clock: Clock, parts: Liveness) -> None:
    """No progress is expected; Kubernetes limits the shutdown."""
    parts.stop()
    assert advance(clock, parts, 3600, queued=16) is None


@pytest.fixture
def stuck_file(tmp_path: Path) -> Path:
    return tmp_path / "stuck"


@pytest.fixture
def worker(servers: Servers, model: Path, stuck_file: Path) -> Iterator[Service]:
    """A worker with timeouts of seconds."""
    servers.stack.environment["STUCK_FILE"] = str(stuck_file)
    worker = Jobs(servers.stack, model).start_worker(module="support.impatient_worker")
    yield worker
    worker.kill()


def livez(worker: Service) -> tuple[int, str]:
    answer = httpx.get(f"{worker.internal_url}/livez", timeout=10)
    return answer.status_code, answer.text


@pytest.mark.faults
def test_worker_whose_consumer_is_stuck_says_so(worker: Service, stuck_file: Path) -> None:
    """The process runs, the sweeper sweeps, Redis answers: only the consumer is silent."""
    assert (200, "ok") == livez(worker)
    stuck_file.touch()
    until(lambda: livez(worker)[0] == 503, timeout=60)
    assert "the consumer has been silent" in livez(worker)[1]
    stuck_file.unlink()
    until(lambda: livez(worker) == (200, "ok"), timeout=30)


@pytest.mark.faults
def test_worker_that_waits_for_its_servers_stays_alive(
    servers: Servers, model: Path, worker: Service
) -> None:
    """Either server frozen, or both gone, for longer than a consumer may be silent."""
    jobs = Jobs(servers.stack, model)
    for faults in (
        [servers.postgres.frozen()],
        [servers.valkey.frozen()],
        [servers.postgres.frozen(), servers.valkey.down()],
    ):
        with ExitStack() as stack:
            for fault in faults:
                stack.enter_context(fault)
            ends = time.monotonic() + 1.5 * CONSUMER_SECONDS
            while time.monotonic() < ends:
                assert (200, "ok") == livez(worker)
                time.sleep(0.2)
        jobs.judge(*jobs.submit(20))
    until(lambda: livez(worker) == (200, "ok"), timeout=30)
    assert worker.process.poll() is None
