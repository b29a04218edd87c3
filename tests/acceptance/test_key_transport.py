"""Reliability cases 73 and 76: how an API key is sent, and what it cannot replace."""

from support.invariants import CheckedClient
from support.keys import KEYS, make
from support.raw import exchange, message
from support.stack import Stack
from support.tokens import Forge
from support.waiting import until

ME = "/api/v1/users/me"
HISTORY = "/api/v1/sentiment/history"
MODELS = "/api/v1/models"


def test_case_073_keys_and_tokens_do_not_mix(checked: CheckedClient, stack: Stack) -> None:
    """A token is no key, a key is no token, and neither is part of the other."""
    account = stack.account()
    made = make(checked, account)
    key = made["key"]
    forge = Forge(stack.keyring, account.id)
    for path in (ME, HISTORY):
        for name, value in (
            ("X-API-Key", account.token),
            ("X-API-Key", account.refresh_token),
            ("X-API-Key", f"Bearer {key}"),
            ("X-API-Key", f"vl_{account.token}"),
            ("Authorization", f"Bearer vl_{account.token}"),
            ("Authorization", f"Bearer {key}.{key}.{key}"),
            ("Authorization", f"Bearer {account.token}{key}"),
            ("Authorization", f"Basic {key}"),
        ):
            assert 401 == checked.request("GET", path, headers={name: value}).status_code, value
    # A login of a revoked key's id would be refused, and a key of that session is none.
    token = forge.token(claims={"sid": made["id"]})
    headers = {"Authorization": f"Bearer {token}"}
    assert 200 == checked.request("GET", HISTORY, headers=headers).status_code
    assert (
        204
        == checked.request("DELETE", f"{KEYS}/{made['id']}", headers=account.headers).status_code
    )
    headers = {"X-API-Key": key}
    until(lambda: 401 == checked.request("GET", HISTORY, headers=headers).status_code, timeout=5)


def test_case_076_transport_of_keys(checked: CheckedClient, stack: Stack) -> None:
    """Exactly one credential, in one of two headers; nothing else carries a key."""
    account = stack.account()
    key = make(checked, account)["key"]
    field, bearer = f"X-API-Key: {key}".encode(), f"Authorization: Bearer {key}".encode()
    token = f"Authorization: Bearer {account.token}".encode()
    for fields, expected in (
        ([field], 200),
        ([field.replace(b"X-API-Key", b"x-api-key")], 200),
        ([bearer], 200),
        ([bearer.replace(b"Bearer", b"bearer")], 200),
        ([field, field], 401),
        ([field, bearer], 401),
        ([field, token], 401),
        ([token, field], 401),
        ([b"X-API-Key: ", token], 401),
        ([b"X-API-Key: "], 401),
        ([b"X-API-Key: " + key.encode() + b"," + key.encode()], 401),
        ([b"X-API-Key: \xff\xfe"], 401),
        ([b"Authorization: " + key.encode()], 401),
        ([b"Authorization: ApiKey " + key.encode()], 401),
        ([b"Api-Key: " + key.encode()], 401),
        ([b"Cookie: X-API-Key=" + key.encode()], 401),
    ):
        (answer,) = exchange(stack.url(HISTORY), message("GET", HISTORY, *fields))
        assert expected == answer.status, fields
    for name in ("api_key", "x-api-key", "key"):
        answer = checked.request("GET", f"{MODELS}?{name}={key}")
        assert (401, "Not authenticated") == (answer.status_code, answer.json()["detail"])
