"""`helm test`: refresh a session, use and revoke an API key, disable and erase an account.

Usage: `accounts.py AUTH_URL INFERENCE_URL [ADMIN PASSWORD_FILE]`. Prints each step; exits with 1 at
the first failure. Without an administrator the administrator's steps are skipped. They are also
skipped, with a message, when the file's password is rejected: the login API does not say whether
the administrator has changed it since or it was always wrong.
"""

import sys
from pathlib import Path

from client import Account, Answer, call, expect, expect_soon, log_in


def refresh(account: Account) -> None:
    """Exchange the refresh token for new tokens."""
    body = {"refresh_token": account.refresh_token}
    tokens = expect("refresh", 200, call(f"{account.auth}/api/v1/auth/refresh", body))
    account.token, account.refresh_token = tokens["access_token"], tokens["refresh_token"]


def use_api_key(account: Account, inference: str) -> None:
    """Create an API key, use it inside and outside its scope, and revoke it."""
    api, text = f"{account.auth}/api/v1/api-keys", {"text": "I love this"}
    body = {"name": "helm test", "scopes": ["analyze"]}
    key = expect("create an API key", 201, call(api, body, token=account.token))

    def analyze() -> Answer:
        return call(f"{inference}/api/v1/sentiment/analyze", text, key=key["key"])

    expect("analyze with the API key", 200, analyze())
    history = f"{inference}/api/v1/sentiment/history"
    expect("history with a key for analyze", 403, call(history, key=key["key"]))
    revoked = call(f"{api}/{key['id']}", token=account.token, method="DELETE")
    expect("revoke the API key", 204, revoked)
    expect_soon("analyze with the revoked API key", 401, analyze)


def administer(account: Account, inference: str, admin: str, password: str) -> None:
    """Disable the account as the administrator, and enable it again."""
    answer = log_in(account.auth, admin, password)
    if answer[0] == 401:
        print(
            "SKIPPED  the administrator: the login rejects the Secret's password",
            flush=True,
        )
        return
    tokens = expect("log in as the administrator", 200, answer)
    user, token = f"{account.auth}/api/v1/admin/users/{account.id}", tokens["access_token"]
    expect("the admin API as an ordinary user", 403, call(user, token=account.token))
    disabled = call(user, {"is_active": False}, token=token, method="PATCH")
    expect("disable the account", 200, disabled)
    history = f"{inference}/api/v1/sentiment/history"
    expect_soon("its token at inference", 401, lambda: call(history, token=account.token))
    expect("its login", 401, log_in(account.auth, account.username, account.password))
    enabled = call(user, {"is_active": True}, token=token, method="PATCH")
    expect("enable the account", 200, enabled)
    logout = call(f"{account.auth}/api/v1/auth/logout", {}, token=token)
    expect("log out as the administrator", 204, logout)
    account.log_in()


def main(auth: str, inference: str, admin: str = "", password_file: str = "") -> None:
    """Run every step with a new account, then erase the account."""
    account = Account(auth)
    refresh(account)
    use_api_key(account, inference)
    if admin:
        administer(account, inference, admin, Path(password_file).read_text().strip())
    history = f"{inference}/api/v1/sentiment/history"
    account.erase()
    expect_soon("the erased account's token", 401, lambda: call(history, token=account.token))
    print("PASS  sessions, API keys and accounts begin and end as they should")


main(*sys.argv[1:])
