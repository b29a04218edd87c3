"""Many sessions under traffic while the keyring rotates (reliability case 77)."""

import asyncio
import base64
import json
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from support.keyring_command import KeyringFile
from support.rows import query
from support.stack import Stack
from support.waiting import until
from valence_common import keyring
from valence_common.db import new_id
from valence_common.keyring import Keyring
from valence_common.security import issue

PATHS = {"auth": "/api/v1/users/me", "inference": "/api/v1/sentiment/history?limit=1"}
SCOPES = ["analyze", "batch", "history"]
REFRESH_EVERY = 2  # rounds of one session
PAUSE_SECONDS = 0.02

_LOGINS = """
WITH login AS (
  SELECT * FROM unnest(
    CAST(:users AS uuid[]), CAST(:sessions AS uuid[]), CAST(:tokens AS text[])
  ) AS login (user_id, session_id, token)
), a_user AS (
  INSERT INTO users (id, username, username_key, email, email_key)
  SELECT user_id, user_id, user_id, user_id || '@example.com', user_id || '@example.com' FROM login
), a_session AS (
  INSERT INTO sessions (id, user_id, expires_at, scopes)
  SELECT session_id, user_id, now() + interval '1 day', ARRAY['analyze', 'batch', 'history']
  FROM login
)
INSERT INTO refresh_tokens (id, session_id, token_hash, expires_at)
SELECT gen_random_uuid(), session_id, sha256(convert_to(token, 'UTF8')), now() + interval '1 day'
FROM login
"""


@dataclass
class Login:
    """A session as its client keeps it."""

    user_id: uuid.UUID
    session_id: uuid.UUID
    token: str
    refresh_token: str
    rounds: int = 0

    @property
    def kid(self) -> str:
        """The key that signed the token."""
        header = self.token.partition(".")[0]
        return str(json.loads(base64.urlsafe_b64decode(header + "=="))["kid"])


def log_in(stack: Stack, count: int) -> list[Login]:
    """Users with a session each, as a login makes them but for the work of a password."""
    keys = Keyring(stack.keyring)
    logins = []
    for _ in range(count):
        user_id, session_id = new_id(), new_id()
        token = issue(
            keys, user_id=user_id, session_id=session_id, scopes=SCOPES, lifetime_seconds=1800
        )
        logins.append(Login(user_id, session_id, token, refresh_token=uuid.uuid4().hex * 2))
    query(
        stack.database_url,
        _LOGINS,
        users=[login.user_id for login in logins],
        sessions=[login.session_id for login in logins],
        tokens=[login.refresh_token for login in logins],
    )
    return logins


@dataclass
class Traffic:
    """Every session asks both services again and again, and refreshes its tokens in between."""

    stack: Stack
    logins: list[Login]
    clients: int
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def requests(self) -> int:
        return sum(self.answers.values())

    def refused(self) -> dict[tuple[str, int], int]:
        """Everything that was not a 200, by path and status."""
        return {what: n for what, n in self.answers.items() if what[1] != 200}

    def all_signed_by(self, kid: str, timeout: float) -> None:
        """Wait until every session has refreshed to a token of this key."""
        until(
            lambda: all(login.kid == kid for login in self.logins),
            timeout=timeout,
            what=f"all sessions on key {kid}; {self.refused()}",
        )

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            shares = [self.logins[n :: self.clients] for n in range(self.clients)]
            await asyncio.gather(*(self._serve(client, share) for share in shares))

    async def _serve(self, client: httpx.AsyncClient, share: list[Login]) -> None:
        while not self._stopped.is_set():
            for login in share:
                if self._stopped.is_set():
                    return
                await self._ask(client, login)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, client: httpx.AsyncClient, login: Login) -> None:
        login.rounds += 1
        if login.rounds % REFRESH_EVERY == 0:
            await self._refresh(client, login)
        for name, path in PATHS.items():
            services = self.stack.running(name)
            # The next replica each time: what one signed, all must know.
            url = services[login.rounds % len(services)].url + path
            headers = {"Authorization": f"Bearer {login.token}"}
            answer = await client.get(url, headers=headers)
            self.answers[name, answer.status_code] += 1

    async def _refresh(self, client: httpx.AsyncClient, login: Login) -> None:
        services = self.stack.running("auth")
        url = services[login.rounds // REFRESH_EVERY % len(services)].url
        body = {"refresh_token": login.refresh_token}
        answer = await client.post(f"{url}/api/v1/auth/refresh", json=body)
        self.answers["refresh", answer.status_code] += 1
        if answer.status_code == 200:
            tokens = answer.json()
            login.token, login.refresh_token = tokens["access_token"], tokens["refresh_token"]


def active(file: Path) -> str:
    """The kid that signs."""
    [kid] = [key.kid for key in keyring.list_keys(file.read_bytes()) if key.active]
    return kid


def drill(stack: Stack, traffic: Traffic, *, timeout: float) -> None:
    """Rotate, go back, go on, drop: while traffic runs; `timeout` in seconds for each step."""
    file = stack.keyring
    command = KeyringFile(file)
    old = active(file)
    traffic.all_signed_by(old, timeout)
    old_tokens = [login.token for login in traffic.logins[:5]]
    command.succeed("rotate")
    new = active(file)
    assert new != old
    traffic.all_signed_by(new, timeout)
    command.succeed("activate", "--kid", old)
    traffic.all_signed_by(old, timeout)
    command.succeed("activate", "--kid", new)
    traffic.all_signed_by(new, timeout)
    services = stack.running("auth") + stack.running("inference")

    def believed() -> set[int]:
        return {
            httpx.get(
                service.url + PATHS[service.name],
                headers={"Authorization": f"Bearer {token}"},
                trust_env=False,
            ).status_code
            for service in services
            for token in old_tokens
        }

    assert {200} == believed()
    command.succeed("drop", "--kid", old)
    until(lambda: believed() == {401}, timeout=10, what="tokens of the dropped key refused")
    before = traffic.requests
    until(lambda: traffic.requests > before + 100, timeout=timeout, what="traffic after the drop")
