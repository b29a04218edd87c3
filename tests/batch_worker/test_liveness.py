"""Liveness: the judge with a clock of its own, and a worker that is stuck or only waits."""

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
    """Time that passes when a test says so."""

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
def judge(clock: Clock) -> Liveness:
    return Liveness(task_time_limit=TASK_SECONDS)


def passes(
    clock: Clock, judge: Liveness, seconds: float, *beating: Heartbeat, queued: int | None = 0
):
    """Let time pass, in which these parts turn and Redis answers or not; what is stuck then."""
    ends = clock.now + seconds
    while clock.now < ends:
        clock.now += POLL_SECONDS
        judge.record_poll(queued)
        for pulse in beating:
            pulse.beat()
    return judge.stuck()


def test_pulse_is_felt_across_a_fork() -> None:
    """A child's work is known to its parent, without a message."""
    pulse = Heartbeat()
    before = pulse.last_beat()
    child = multiprocessing.get_context("fork").Process(target=pulse.beat)
    child.start()
    child.join()
    assert before < pulse.last_beat() <= time.monotonic()


def test_idle_worker_whose_parts_turn_is_alive(clock: Clock, judge: Liveness) -> None:
    """No work for a day is no reason to doubt."""
    assert passes(clock, judge, 86_400, judge.consumer) is None


def test_silent_consumer_is_stuck_while_redis_answers(clock: Clock, judge: Liveness) -> None:
    """And not before it had the time that a connection anew may take."""
    assert passes(clock, judge, 60) is None
    assert "the consumer has been silent" in passes(clock, judge, 60)
    assert passes(clock, judge, 1, judge.consumer) is None


def test_consumer_that_waits_for_redis_is_not_stuck(clock: Clock, judge: Liveness) -> None:
    """However long the outage, and the time to connect again counts from its end."""
    assert passes(clock, judge, 3600, queued=None) is None
    assert passes(clock, judge, 60) is None
    assert passes(clock, judge, 30, queued=None) is None
    assert passes(clock, judge, 60) is None
    assert "the consumer has been silent" in passes(clock, judge, 60)


def test_consumer_is_not_judged_by_what_nobody_looked_at(clock: Clock, judge: Liveness) -> None:
    """Whether Redis answers must be known, or its absence would end every worker."""
    passes(clock, judge, 10)
    clock.now += 3600
    assert judge.stuck() is None


def test_loop_that_does_not_come_round_is_stuck(clock: Clock, judge: Liveness) -> None:
    """The pause between its calls is its own; what is above that is counted."""
    often, seldom = Heartbeat(), Heartbeat()
    judge.threads.update(sweep=(often, 2), retention=(seldom, 600))
    assert passes(clock, judge, 600, judge.consumer, often) is None
    assert passes(clock, judge, 290, judge.consumer, seldom) is None
    assert "'sweep'" in passes(clock, judge, 30, judge.consumer, seldom)


def test_worker_that_takes_no_message_is_stuck(clock: Clock, judge: Liveness) -> None:
    """Messages wait all the time, the consumer turns, and no task begins or ends."""
    assert passes(clock, judge, 170, judge.consumer, queued=16) is None
    assert passes(clock, judge, 5, judge.consumer, queued=0) is None
    assert passes(clock, judge, 170, judge.consumer, queued=16) is None
    assert "no task has started" in passes(clock, judge, 30, judge.consumer, queued=16)
    assert passes(clock, judge, 3600, judge.consumer, judge.tasks, queued=16) is None


def test_worker_that_was_told_to_end_is_not_stuck(clock: Clock, judge: Liveness) -> None:
    """Nothing has to turn any more; whoever told it will not wait for ever."""
    judge.stop()
    assert passes(clock, judge, 3600, queued=16) is None


@pytest.fixture
def stuck_file(tmp_path: Path) -> Path:
    return tmp_path / "stuck"


@pytest.fixture
def worker(servers: Servers, model: Path, stuck_file: Path) -> Iterator[Service]:
    """One that is judged after seconds."""
    servers.stack.environment["STUCK_FILE"] = str(stuck_file)
    worker = Jobs(servers, model).start_worker(module="support.impatient_worker")
    yield worker
    worker.kill()


def livez(worker: Service) -> tuple[int, str]:
    answer = httpx.get(f"{worker.internal_url}/livez", timeout=10)
    return answer.status_code, answer.text


def test_worker_whose_consumer_is_stuck_says_so(worker: Service, stuck_file: Path) -> None:
    """Its process is there, its sweeper sweeps, Redis answers: only the consumer is silent."""
    assert (200, "ok") == livez(worker)
    stuck_file.touch()
    until(lambda: livez(worker)[0] == 503, timeout=60)
    assert "the consumer has been silent" in livez(worker)[1]
    stuck_file.unlink()
    until(lambda: livez(worker) == (200, "ok"), timeout=30)


def test_worker_that_waits_for_its_servers_stays_alive(
    servers: Servers, model: Path, worker: Service
) -> None:
    """Either server frozen, or both gone, for longer than a consumer may be silent."""
    jobs = Jobs(servers, model)
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
