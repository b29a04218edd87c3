"""Setup of webhooks: accepted URLs, and signing secrets."""

import base64
import ipaddress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from support import credentials
from support.batches import make_user
from support.rows import query
from support.stack import Account, Stack
from valence_common.models import WebhookSecret
from valence_common.problems import Unprocessable
from valence_inference.batches import webhook_secrets

SECRETS = "/api/v1/webhooks/secret"
BATCH = "/api/v1/sentiment/analyze/batch"
HOOK = "https://example.com/hook"


def rule(url: str, **more: Any) -> str | None:
    """Return the rule that a URL breaks; the message must not contain the URL."""
    options = {"enabled": True, "allow_http": False, **more}
    try:
        webhook_secrets.check_url(url, **options)
    except Unprocessable as refused:
        [error] = refused.errors
        assert "webhook_url" == error.field
        assert "secret-word" not in error.message
        return error.rule
    return None


@pytest.mark.parametrize(
    "url",
    [
        HOOK,
        "https://example.com",
        "https://example.com:8443/a/b?secret-word=1&x=%20@",
        "https://xn--bcher-kva.example/",
        "https://1.1.1.1/hook",
        "https://[2606:4700:4700::1111]/hook",
        "https://localhost/",  # what a name leads to is looked at when it is sent
        "https://example.com/" + "a" * (2048 - 20),
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    """Absolute URLs with TLS to a host name or a public address."""
    assert rule(url) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "url"),
        ("secret-word", "url"),
        ("/hook", "url"),
        ("//example.com/hook", "url"),
        ("https:/example.com", "url"),
        ("https:example.com", "url"),
        ("https://", "url"),
        ("https:///hook", "url"),
        ("https://:443/", "url"),
        ("http://example.com/", "url"),
        ("ftp://example.com/", "url"),
        ("file:///etc/passwd", "url"),
        ("javascript:alert(1)", "url"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "url"),
        ("https://example.com:0/", "url"),
        ("https://example.com:65536/", "url"),
        ("https://example.com:port/", "url"),
        ("https://[::1/", "url"),
        ("https://[nothing]/", "url"),
        ("https://user:secret-word@example.com/", "parts"),
        ("https://@example.com/", "parts"),
        ("https://example.com/#secret-word", "parts"),
        ("https://example.com/#", "parts"),
        ("https://example.com/\r\nX: y", "characters"),
        ("https://example.com/\x00", "characters"),
        ("https://example.com/\x7f", "characters"),
        ("https://exa mple.com/", "characters"),
        ("https://example.com\\@127.0.0.1/", "characters"),
        ("https://bücher.example/", "characters"),
        ("https://127。0。0。1/", "characters"),
        ("https://127.0.0.1/", "address"),
        ("https://127.0.0.1./", "address"),
        ("https://2130706433/", "address"),
        ("https://0x7f000001/", "address"),
        ("https://127.1/", "address"),
        ("https://0177.0.0.1/", "address"),
        ("https://0/", "address"),
        ("https://10.0.0.1/", "address"),
        ("https://169.254.169.254/latest/meta-data/", "address"),
        ("https://[::1]/", "address"),
        ("https://[::ffff:127.0.0.1]/", "address"),
        ("https://[fe80::1%25eth0]/", "address"),
        ("https://[64:ff9b::a9fe:a9fe]/", "address"),
        ("https://example.com/" + "a" * (2048 - 19), "too_long"),
    ],
)
def test_urls_that_are_refused(url: str, expected: str) -> None:
    """URLs that cannot or must not be called are rejected at submission."""
    assert expected == rule(url)


def test_the_operator_decides() -> None:
    """Settings decide whether webhooks, http and other networks are allowed."""
    assert "not_enabled" == rule(HOOK, enabled=False)
    assert rule("http://example.com/", allow_http=True) is None
    assert "url" == rule("ftp://example.com/", allow_http=True)
    networks = [ipaddress.ip_network("10.0.0.0/8")]
    assert rule("https://10.0.0.1/", allowed_networks=networks) is None
    assert "address" == rule("https://127.0.0.1/", allowed_networks=networks)


def test_secret_is_random_and_in_the_standard_format(session: Session) -> None:
    """`whsec_` and 32 bytes in Base64, as Standard Webhooks writes secrets."""
    user_id = make_user(session)
    made = {webhook_secrets.create_secret(session, user_id)[1] for _ in range(5)}
    assert 5 == len(made)
    for secret in made:
        assert secret.startswith("whsec_")
        assert 32 == len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))


def test_a_secret_that_was_replaced_signs_for_a_day_more(session: Session) -> None:
    """For its whole grace period, however many follow: their responses may have been lost."""
    user_id, other = make_user(session), make_user(session)
    webhook_secrets.create_secret(session, other)
    first, _ = webhook_secrets.create_secret(session, user_id)
    webhook_secrets.create_secret(session, user_id)
    replaced = webhook_secrets.list_secrets(session, user_id)[1]
    assert first.id == replaced.id
    assert replaced.expires_at is not None
    assert timedelta(days=1) == replaced.expires_at - first.created_at
    earlier = update(WebhookSecret).where(WebhookSecret.id == first.id)
    until = replaced.expires_at - timedelta(hours=1)
    session.execute(earlier.values(expires_at=until))
    webhook_secrets.create_secret(session, user_id)
    new, unseen, old = webhook_secrets.list_secrets(session, user_id)
    assert [None, False, until] == [new.expires_at, unseen.expires_at is None, old.expires_at]
    webhook_secrets.delete_secrets(session, user_id)
    assert [] == webhook_secrets.list_secrets(session, user_id)
    assert 1 == len(webhook_secrets.list_secrets(session, other))


def test_at_most_five_secrets_live(session: Session) -> None:
    """A further one deletes the oldest of those in their grace period."""
    user_id = make_user(session)
    made = [webhook_secrets.create_secret(session, user_id)[0].id for _ in range(7)]
    assert made[:1:-1] == [secret.id for secret in webhook_secrets.list_secrets(session, user_id)]
    mine = select(WebhookSecret.id).filter_by(user_id=user_id)
    assert set(made[2:]) == set(session.scalars(mine))


def test_without_a_secret_nothing_is_asked_for(session: Session) -> None:
    """The error says how to create one."""
    user_id = make_user(session)
    with pytest.raises(Unprocessable) as refused:
        webhook_secrets.require_secret(session, user_id)
    [error] = refused.value.errors
    assert ("webhook_url", "no_secret") == (error.field, error.rule)
    assert f"POST {SECRETS}" in error.message
    webhook_secrets.create_secret(session, user_id)
    webhook_secrets.require_secret(session, user_id)


def test_secret_is_shown_once(stack: Stack, account: Account, database_url: str) -> None:
    """Only in the response; the audit log has every change without the secret."""
    made = stack.post(SECRETS, account)
    assert 201 == made.status_code
    secret = made.json()["secret"]
    stack.secrets.add(secret)
    assert made.json()["expires_at"] is None
    assert "webhooks" in made.headers["ratelimit-policy"]
    again = stack.post(SECRETS, account).json()
    listed = stack.get(SECRETS, account)
    assert "secret" not in listed.json()["items"][0]
    assert [again["id"], made.json()["id"]] == [each["id"] for each in listed.json()["items"]]
    assert 204 == stack.request("DELETE", SECRETS, headers=account.headers).status_code
    assert {"items": [], "next_cursor": None} == stack.get(SECRETS, account).json()
    audit = query(
        database_url,
        "SELECT action, details FROM audit_events WHERE actor_id = :id"
        " AND action LIKE 'webhook_secret.%' ORDER BY id",
        id=account.id,
    )
    assert ["created", "rotated", "deleted", "deleted"] == [
        action.removeprefix("webhook_secret.") for action, _ in audit
    ]
    assert secret not in str(audit)
    for service in stack.services:
        assert secret not in service.output()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_key_manages_no_secrets(stack: Stack, account: Account, method: str) -> None:
    """An API key that may submit batches cannot manage signing secrets."""
    key = credentials.key(stack, account, ["batch"])
    answer = stack.request(method, SECRETS, headers=key)
    assert (403, webhook_secrets.LoginRequired.detail) == (
        answer.status_code,
        answer.json()["detail"],
    )


def test_batch_is_refused_where_webhooks_are_off(
    stack: Stack, account: Account, database_url: str
) -> None:
    """By default: 422 with a sentence, and nothing is stored."""
    body = {"texts": ["good"], "webhook_url": HOOK}
    answer = stack.post(BATCH, account, json=body)
    assert 422 == answer.status_code
    [error] = answer.json()["errors"]
    assert ("webhook_url", "not_enabled") == (error["field"], error["rule"])
    mine = "SELECT count(*) FROM batches WHERE user_id = :id"
    assert [(0,)] == query(database_url, mine, id=account.id)


def test_log_of_a_batch_without_webhook_is_empty(stack: Stack, account: Account) -> None:
    """The list is empty."""
    task_id = stack.submit(account, ["good"])
    answer = stack.get(f"/api/v1/sentiment/task/{task_id}/deliveries", account)
    assert (200, {"items": [], "next_cursor": None}) == (answer.status_code, answer.json())


def test_log_comes_in_pages(stack: Stack, account: Account, database_url: str) -> None:
    """Newest first, without repeats."""
    task_id = stack.submit(account, ["good"])
    query(
        database_url,
        "INSERT INTO webhook_deliveries (id, batch_id, user_id, event, status, finished_at)"
        " SELECT gen_random_uuid(), :batch, :user, 'batch.completed', 'failed', now()"
        " FROM generate_series(1, 5)",
        batch=task_id,
        user=account.id,
    )
    path, seen, cursor = f"/api/v1/sentiment/task/{task_id}/deliveries", [], None
    while True:
        page = stack.get(
            path, account, params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        )
        seen += [each["id"] for each in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert 5 == len(set(seen))
    assert sorted(seen, reverse=True) == seen
    answer = stack.post(f"{path}/{seen[0]}/redeliver", account)
    assert (409, "Webhooks are not enabled here") == (answer.status_code, answer.json()["detail"])
