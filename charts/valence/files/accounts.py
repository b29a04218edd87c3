"""What `helm test` asks of accounts: refresh, keys, the administrator, and an end to each.

`accounts.py AUTH_URL INFERENCE_URL [ADMIN PASSWORD_FILE]`; prints each step, ends with 1 at the
first that is wrong. Without an administrator its part is left out, as it is, with a word, where the
file's password is not theirs any more: nobody can tell a changed one from a wrong one.
"""

import sys
from pathlib import Path

from client import Account, Answer, call, expect, expect_soon, log_in


def refresh(account: Account) -> None:
    """Trade the refresh token for new tokens."""
    body = {"refresh_token": account.refresh_token}
    tokens = expect("refresh", 200, call(f"{account.auth}/api/v1/auth/refresh", body))
    account.token, account.refresh_token = tokens["access_token"], tokens["refresh_token"]


def keys(account: Account, inference: str) -> None:
    """Make a key, use it for what it is for and for what it is not, revoke it."""
    api, text = f"{account.auth}/api/v1/api-keys", {"text": "I love this"}
    body = {"name": "helm test", "scopes": ["analyze"]}
    key = expect("create a key", 201, call(api, body, token=account.token))

    def analyze() -> Answer:
        return call(f"{inference}/api/v1/sentiment/analyze", text, key=key["key"])

    expect("analyze with the key", 200, analyze())
    history = f"{inference}/api/v1/sentiment/history"
    expect("history with a key for analyze", 403, call(history, key=key["key"]))
    gone = call(f"{api}/{key['id']}", token=account.token, method="DELETE")
    expect("revoke the key", 204, gone)
    expect_soon("analyze with the revoked key", 401, analyze)


def administer(account: Account, inference: str, admin: str, password: str) -> None:
    """Disable the account, and enable it again."""
    answer = log_in(account.auth, admin, password)
    if answer[0] == 401:
        print(
            "LEFT OUT  the administrator: the Secret's password is not theirs (any more)",
            flush=True,
        )
        return
    tokens = expect("log in as the administrator", 200, answer)
    user, token = f"{account.auth}/api/v1/admin/users/{account.id}", tokens["access_token"]
    expect("the account as others may not see it", 403, call(user, token=account.token))
    disable = call(user, {"is_active": False}, token=token, method="PATCH")
    expect("disable the account", 200, disable)
    history = f"{inference}/api/v1/sentiment/history"
    expect_soon("its token, elsewhere", 401, lambda: call(history, token=account.token))
    expect("its login", 401, log_in(account.auth, account.username, account.password))
    enable = call(user, {"is_active": True}, token=token, method="PATCH")
    expect("enable the account", 200, enable)
    leave = call(f"{account.auth}/api/v1/auth/logout", {}, token=token)
    expect("the administrator logs out", 204, leave)
    account.log_in()


def main(auth: str, inference: str, admin: str = "", password_file: str = "") -> None:
    """Try all of it with a new account, then erase that."""
    account = Account(auth)
    refresh(account)
    keys(account, inference)
    if admin:
        administer(account, inference, admin, Path(password_file).read_text().strip())
    history = f"{inference}/api/v1/sentiment/history"
    account.erase()
    expect_soon("the erased account's token", 401, lambda: call(history, token=account.token))
    print("PASS  sessions, keys and accounts begin and end as they should")


main(*sys.argv[1:])
