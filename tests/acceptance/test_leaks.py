"""Reliability cases 63 and 98: what metrics may grow by, and what logs must not hold."""

import contextlib
import json
import uuid
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from support.invariants import CheckedClient
from support.raw import exchange, message
from support.rows import query
from support.stack import PASSWORD, Account, Service, Stack

ME = "/api/v1/users/me"
ANALYZE = "/api/v1/sentiment/analyze"


def _series(service: Service) -> list[dict[str, str]]:
    """The labels of every series of a service."""
    text = httpx.get(f"{service.internal_url}/metrics").text
    families = text_string_to_metric_families(text)
    return [sample.labels for family in families for sample in family.samples]


def test_case_063_metric_cardinality(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Whatever paths, methods and names come, series stay few and their labels are ours."""
    random = uuid.uuid4().hex
    methods = ("GET", "POST", "PROPFIND", "M-SEARCH", "LINK", "TRACE")
    requests = [
        message(methods[n % len(methods)], f"/{quote(random)}/{n}?{random}={n}", close=False)
        for n in range(1000)
    ]
    requests += [message("GET", f"/api/v1/models/{random}-{n}", close=False) for n in range(50)]
    requests += [message("GET", f"/api/v1/sentiment/task/{uuid.uuid4()}") for n in range(1)]
    services = stack.running("auth") + stack.running("inference")
    before = {service.pid: len(_series(service)) for service in services}
    for path in (ME, ANALYZE):
        statuses = {answer.status for answer in exchange(stack.url(path), b"".join(requests))}
        # Models and tasks are inference's: auth knows no such path, inference asks who it is first.
        assert ({404, 401} if path == ANALYZE else {404}) == statuses
    for number in range(20):
        stack.login(f"{random}-{number}")
        checked.request("GET", f"/api/v1/sentiment/task/{random}", headers=account.headers)
    for service in services:
        series = _series(service)
        # Over a thousand requests; other tests have used the routes that exist, or have not.
        assert len(series) - before[service.pid] < 200
        values = {value for labels in series for value in labels.values()}
        assert not [v for v in values if random in v or account.id in v or account.username in v]
        routes = {labels["route"] for labels in series if "route" in labels}
        assert "unmatched" in routes
        assert "OTHER" in {labels["method"] for labels in series if "method" in labels}
        assert not [route for route in routes if random in route]


def test_case_098_no_log_holds_a_secret(
    stack: Stack, checked: CheckedClient, account: Account
) -> None:
    """Passwords of Postgres and Redis, tokens and texts stand in no line of any service."""
    text = checked.secret("a text that nobody but its sender may read")
    checked.secrets.clear()  # the answer holds the text, as it should
    answer = checked.request("POST", ANALYZE, json={"text": text}, headers=account.headers)
    assert 200 == answer.status_code
    stack.finish(account, stack.submit(account, [text, "good"]))
    checked.secret(text)
    passwords = {urlsplit(url).password for url in (stack.database_url, stack.redis_url)}
    secrets = {text, account.token, account.refresh_token} | (passwords - {None})
    for service in stack.services:
        log = service.output()
        assert log
        assert not [secret for secret in secrets if secret in log], service.name


def test_case_098_a_bug_in_each_service(
    own_database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A table that is gone is an error nobody expected: a plain 500, and no word of it in a log."""
    broken = Stack(tmp_path / "broken", own_database_url, redis_url)
    try:
        services = [broken.start("auth"), broken.start("inference")]
        account = broken.account()
        # What each handler needs and no gate does.
        for table in ("predictions", "refresh_tokens"):
            query(own_database_url, f"ALTER TABLE {table} RENAME TO gone_{table}")
        text = "a text that nobody but its sender may read"
        answers = [
            broken.post(ANALYZE, account, json={"text": text}),
            broken.post("/api/v1/auth/refresh", json={"refresh_token": account.refresh_token}),
        ]
        for answer in answers:
            assert 500 == answer.status_code
            assert "application/problem+json" == answer.headers["content-type"]
            assert answer.headers["x-request-id"] == answer.json()["request_id"]
            detail = "An unexpected error occurred; report the request id to the operator"
            assert detail == answer.json()["detail"]
        passwords = {urlsplit(url).password for url in (own_database_url, redis_url)} - {None}
        secrets = {text, PASSWORD, account.token, account.refresh_token, "SELECT", "INSERT"}
        for service, answer in zip(reversed(services), answers, strict=True):
            log = service.output()
            events = [json.loads(line) for line in log.splitlines()]
            unhandled = [event for event in events if event["event"] == "unhandled"]
            assert answer.json()["request_id"] in {event["request_id"] for event in unhandled}
            assert not [secret for secret in secrets | passwords if secret in log + answer.text]
            assert "Traceback" not in log
    finally:
        broken.close()


def test_case_098_no_process_shows_a_secret(stack: Stack) -> None:
    """The command lines that other users of the machine can see hold no password and no key."""
    secrets = {urlsplit(url).password for url in (stack.database_url, stack.redis_url)} - {None}
    secrets |= {entry["key"] for entry in json.loads(stack.keyring.read_text())["keys"]}
    assert 3 == len(secrets)
    running = [each for each in stack.services if each.process.poll() is None]
    assert {"auth", "inference"} <= {service.name for service in running}
    for service in running:
        process = psutil.Process(service.pid)
        assert f"valence_{service.name}" in process.cmdline()
        shown = " ".join(process.cmdline())
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                shown += " ".join(child.cmdline())
        assert not [secret for secret in secrets if secret in shown], service.name
