"""Clients in the middle of chaos: one that watches, and some that send until they are answered."""

import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field

import httpx

from chaos.verdict import Sent
from support.stack import Account, Stack

PATH = "/api/v1/sentiment/analyze/batch"
GIVE_UP_SECONDS = 120
ASK_AGAIN = frozenset({409, 503})
"""It is being accepted already, or nobody can now: all else but 202 is odd."""


@dataclass
class Clients:
    """All of them, and what they were told that they should not have been."""

    stack: Stack
    complaints: list[str] = field(default_factory=list)

    def replica(self, choice: random.Random) -> str:
        """Any web process."""
        return choice.choice(self.stack.running("inference")).url

    def send(self, account: Account, texts: list[str], seed: int, first: str = "") -> Sent:
        """Ask until there is a 202, always with the same key; `first` is whom it asks first."""
        choice = random.Random(seed)
        key = uuid.UUID(int=choice.getrandbits(128))
        headers = {
            **account.headers,
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{key}"',
        }
        body = json.dumps({"texts": texts}).encode()
        ends = time.monotonic() + GIVE_UP_SECONDS
        url = first or self.replica(choice)
        while time.monotonic() < ends:
            try:
                answer = httpx.post(url + PATH, content=body, headers=headers, timeout=30)
            except httpx.TransportError:
                status = 0
            else:
                status = answer.status_code
                if status == 202:
                    return Sent(account.id, texts, frozenset({answer.json()["task_id"]}))
                if status not in ASK_AGAIN:
                    self.complaints.append(f"a batch was answered {status}")
            time.sleep(0.1)
            url = self.replica(choice)
        self.complaints.append("a batch was not accepted for two minutes")
        return Sent(account.id, texts, frozenset())

    def watch(self, account: Account, task_id: str, enough: threading.Event) -> None:
        """Follow a batch's progress to the end of the run; it never falls."""
        choice, most = random.Random(0), 0
        while not enough.wait(0.2):
            url = f"{self.replica(choice)}/api/v1/sentiment/task/{task_id}"
            try:
                answer = httpx.get(url, headers=account.headers, timeout=10)
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                done = answer.json()["done"]
                if done < most:
                    self.complaints.append(f"progress fell from {most} to {done}")
                most = max(most, done)
            elif answer.status_code != 503:
                self.complaints.append(f"a status was answered {answer.status_code}")
