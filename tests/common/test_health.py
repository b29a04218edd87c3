"""Health: readiness, liveness, and the state of dependencies."""

import asyncio
import re

import httpx
import pytest

from valence_common import health as health_module
from valence_common.health import Health, internal_app
from valence_common.metrics import HttpMetrics


class Dependencies:
    """Two dependencies whose state the test sets."""

    def __init__(self) -> None:
        self.up = {"postgres": False, "redis": False}
        self.silent = False
        self.asked = 0

    async def ask(self, name: str) -> bool:
        self.asked += 1
        if self.silent:
            await asyncio.sleep(60)
        return self.up[name]

    def health(self) -> Health:
        return Health({name: lambda name=name: self.ask(name) for name in self.up})


def _metric(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return line.rpartition(" ")[2]


def test_ready_after_postgres_and_then_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready without Postgres, ready without Redis, and not checked again after."""
    monkeypatch.setattr(health_module, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(health_module, "CACHE_SECONDS", 0)

    async def work() -> None:
        dependencies = Dependencies()
        health, metrics = dependencies.health(), HttpMetrics()
        app = internal_app(health, render=metrics.render, dependency_up=metrics.dependency_up)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            readying = asyncio.create_task(health.become_ready())
            while dependencies.asked < 2 and not readying.done():
                await asyncio.sleep(0)
            assert not readying.done()
            answer = await client.get("/readyz")
            assert (503, "1") == (answer.status_code, answer.headers["retry-after"])
            assert 200 == (await client.get("/livez")).status_code
            dependencies.up["postgres"] = True
            await readying
            assert 200 == (await client.get("/readyz")).status_code
            text = (await client.get("/metrics")).text
            assert "1.0" == _metric(text, 'valence_dependency_up{dependency="postgres"}')
            assert "0.0" == _metric(text, 'valence_dependency_up{dependency="redis"}')
            dependencies.up = {"postgres": False, "redis": True}
            assert 200 == (await client.get("/readyz")).status_code
            text = (await client.get("/metrics")).text
            assert "0.0" == _metric(text, 'valence_dependency_up{dependency="postgres"}')
            assert "1.0" == _metric(text, 'valence_dependency_up{dependency="redis"}')
            assert 404 == (await client.get("/")).status_code

    asyncio.run(work())


def test_silent_dependency_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that times out counts as down; all checks run concurrently."""
    monkeypatch.setattr(health_module, "CHECK_SECONDS", 0.05)

    async def work() -> None:
        dependencies = Dependencies()
        dependencies.silent = True
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert {"postgres": False, "redis": False} == await dependencies.health().check()
        assert loop.time() - started < 1

    asyncio.run(work())


def test_livez_reports_a_stuck_part() -> None:
    """A process with a stuck part asks to be restarted."""
    reasons = ["a part of it", None]

    async def work() -> None:
        health, metrics = Dependencies().health(), HttpMetrics()
        app = internal_app(
            health,
            render=metrics.render,
            dependency_up=metrics.dependency_up,
            stuck=lambda: reasons.pop(0),
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [await client.get("/livez") for _ in range(2)]
        assert [(503, "a part of it"), (200, "ok")] == [(a.status_code, a.text) for a in answers]

    asyncio.run(work())


def test_observed_requests() -> None:
    """Requests are counted by method, route and status; unmatched ones are not timed."""
    metrics = HttpMetrics()
    for method in ("GET", "GET", "PROPFIND", "X" * 1000):
        metrics.observe(method, "/route/{id}", 200, 0.003)
    metrics.observe("PUT", "/route/{id}", 405, 0.003)
    metrics.observe("GET", "unmatched", 404, 0.003)
    text = metrics.render().decode()
    assert {"GET"} == set(re.findall(r'duration_seconds_count{method="(\w+)"', text))
    series = 'valence_http_requests_total{method="%s",route="/route/{id}",status="200"}'
    assert "2.0" == _metric(text, series % "GET")
    assert "2.0" == _metric(text, series % "OTHER")
    bucket = 'valence_http_request_duration_seconds_bucket{le="0.005",method="GET"'
    assert "2.0" == _metric(text, bucket)
    assert "process_resident_memory_bytes" in text


def test_concurrent_checks_share_a_result() -> None:
    """A hundred concurrent requests to /health cost each dependency one check."""
    asked = 0

    async def check() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    async def work() -> None:
        health = Health({"postgres": check})
        answers = await asyncio.gather(*(health.check() for _ in range(100)))
        assert [{"postgres": True}] * 100 == answers

    asyncio.run(work())
    assert 1 == asked
