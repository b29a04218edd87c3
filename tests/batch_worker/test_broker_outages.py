"""One worker and a Redis that dies again and again; the short form is in tests/faults."""

import random
import time
from pathlib import Path

import httpx
import pytest

from support.jobs import Jobs
from support.servers import Servers

RETURN_SECONDS = 30
"""After Redis is back a batch is done within this time (case 27)."""


@pytest.mark.slow_faults
def test_case_027_worker_survives_ten_outages_of_redis(servers: Servers, model: Path) -> None:
    """Killed and away for up to a minute; idle connections reset; the worker is never restarted."""
    jobs = Jobs(servers, model)
    worker = jobs.start_worker()
    choice = random.Random(27)
    outages = [*sorted(choice.sample(range(1, 60), 9)), 60]
    seconds = []
    for outage in outages:
        with servers.valkey.down():
            time.sleep(outage)
            assert 200 == httpx.get(f"{worker.internal_url}/livez").status_code
        account, task_id, texts = jobs.submit(10)
        returned = time.monotonic()
        servers.stack.finish(account, task_id, timeout=RETURN_SECONDS)
        seconds.append(round(time.monotonic() - returned, 1))
        with servers.valkey.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        jobs.judge(account, task_id, texts)
        jobs.judge(*jobs.submit(10))
    print(f"outages of {outages} s, then done after {seconds} s")
    assert worker.process.poll() is None
    assert 200 == httpx.get(f"{worker.internal_url}/livez").status_code
    worker.kill()
