"""API keys, made as their owners make them."""

from typing import Any

import httpx

from support.invariants import Oracle
from support.stack import Account

KEYS = "/api/v1/api-keys"


def make(oracle: Oracle, account: Account, **options: Any) -> dict[str, Any]:
    """A new key, which from then on nobody may show."""
    body = {"name": "a key", **options}
    answer = oracle.request("POST", KEYS, json=body, headers=account.headers)
    assert 201 == answer.status_code, answer.text
    return shown(oracle, answer)


def shown(oracle: Oracle, answer: httpx.Response) -> dict[str, Any]:
    """The key that an answer shows, this once."""
    made = dict(answer.json())
    assert "no-store" == answer.headers["cache-control"]
    oracle.secret(made["key"])
    oracle.secret(made["key"][36:-8])
    return made
