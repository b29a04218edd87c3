"""`helm test`: register, log in, analyze, run a batch, read the history, erase the account.

Usage: `smoke.py AUTH_URL INFERENCE_URL`. Prints each step; exits with 1 at the first failure.
"""

import sys
import time
from typing import Any

from client import Account, call, expect

BATCH_SECONDS = 60
TEXTS = ["What a wonderful day", "This is terrible", "Great service", "I hate waiting"]


def run_batch(api: str, token: str) -> Any:
    """Submit a batch, poll it until it ends, and return its status."""
    task = expect("batch", 202, call(f"{api}/analyze/batch", {"texts": TEXTS}, token=token))
    deadline = time.monotonic() + BATCH_SECONDS
    while True:
        state = call(f"{api}/task/{task['task_id']}", token=token)
        if state[0] != 200 or state[1]["status"] not in {"pending", "processing"}:
            return expect("batch has ended", 200, state)
        if time.monotonic() > deadline:
            sys.exit(f"FAIL  batch: still {state[1]['status']} after {BATCH_SECONDS} s")
        time.sleep(0.5)


def main(auth: str, inference: str) -> None:
    """Use every service once, as a new account."""
    api = f"{inference}/api/v1/sentiment"
    account = Account(auth)
    token = account.token
    expect("own profile", 200, call(f"{auth}/api/v1/users/me", token=token))
    score = expect("analyze", 200, call(f"{api}/analyze", {"text": "I love this"}, token=token))
    if score["sentiment"] != "positive":
        sys.exit(f"FAIL  analyze: {score['sentiment']} instead of positive")
    batch = run_batch(api, token)
    if batch["status"] != "completed" or len(batch["results"]) != len(TEXTS):
        sys.exit(f"FAIL  batch: {batch['status']} with {len(batch['results'])} results")
    history = expect("history", 200, call(f"{api}/history", token=token))
    if len(history["items"]) != len(TEXTS) + 1:
        sys.exit(f"FAIL  history: {len(history['items'])} items instead of {len(TEXTS) + 1}")
    account.erase()
    print("PASS  an account, its texts and a batch went through all three services")


main(*sys.argv[1:])
