"""Requests with a token whose user was deleted."""

from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from support.stack import Stack
from valence_common.db import make_engine


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/sentiment/analyze", {"text": "fine"}),
        ("/api/v1/sentiment/analyze/batch", {"texts": ["fine"]}),
        ("/api/v1/users/me", None),
    ],
)
def test_token_of_a_deleted_user_is_no_credential(
    stack: Stack, database_url: str, path: str, body: dict[str, Any] | None
) -> None:
    """The response is 401, not 500."""
    account = stack.account()
    engine = make_engine(SecretStr(database_url))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE id = :id"), {"id": account.id})
    engine.dispose()
    answer = stack.post(path, account, json=body) if body else stack.get(path, account)
    assert (401, "Could not validate credentials") == (answer.status_code, answer.json()["detail"])
