"""The account of an identity."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.oidc_login import (
    Browser,
    me,
    not_believed,
    refused,
)
from support.oidc_provider import (
    OidcProvider,
)
from support.rows import query
from support.stack import Service, Stack
from support.tokens import DROP


def test_second_login_is_the_same_account(provider: OidcProvider, browser: Browser) -> None:
    """The subject identifies the account: another address or name creates no other one."""
    first = me(browser, browser.log_in())
    provider.person |= {"email": "elsewhere@example.com", "email_verified": False}
    assert first["id"] == me(browser, browser.log_in())["id"]


def test_concurrent_first_logins_create_one_account(
    provider: OidcProvider, valence: Stack, auth: Service
) -> None:
    """Eight first logins of one person at the same time."""
    browsers = [Browser(valence, auth) for _ in range(8)]
    ways = [browser.at_provider() for browser in browsers]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda pair: pair[0].get(pair[1]), zip(browsers, ways, strict=True))
        )
    assert 1 == len({me(browsers[0], browsers[0].keep(answer))["id"] for answer in answers})
    for browser in browsers:
        browser.close()


def test_account_without_a_password_has_no_password_login(
    provider: OidcProvider, browser: Browser
) -> None:
    """Not even with an empty password."""
    name = me(browser, browser.log_in())["username"]
    for password in ("", "None", "correct horse battery"):
        answer = browser.post("/api/v1/auth/login", data={"username": name, "password": password})
        assert answer.status_code in {401, 422}


@pytest.mark.parametrize(
    ("status", "detail", "person"),
    [
        (403, "not confirm", {"email_verified": False}),
        (403, "not confirm", {"email_verified": DROP}),
        (403, "not confirm", {"email_verified": "false"}),
        (403, "not confirm", {"email_verified": [True]}),
        (403, "not confirm", {"email_verified": 1}),
        (403, "not confirm", {"email": DROP}),
        (403, "not confirm", {"email": "no address"}),
        (403, "not confirm", {"email": "a\0@example.com"}),
        (403, "not confirm", {"email": ["a@example.com"]}),
        (200, "", {"email_verified": "true"}),
        (200, "", {"preferred_username": ["a"]}),
        (200, "", {"preferred_username": "\0\u2603"}),
        (200, "", {"preferred_username": "x" * 4000}),
    ],
)
def test_new_account_needs_a_confirmed_address(
    provider: OidcProvider, browser: Browser, status: int, detail: str, person: dict[str, Any]
) -> None:
    """It needs nothing else: an unacceptable name is replaced."""
    provider.person |= person
    answer = browser.log_in()
    assert status == answer.status_code, answer.text
    assert detail in answer.json().get("detail", "")


def test_address_from_userinfo(provider: OidcProvider, browser: Browser) -> None:
    """Some providers return it only there; its subject must be the same."""
    email = provider.person.pop("email")
    provider.userinfo = {"email": email, "email_verified": True}
    assert email == me(browser, browser.log_in())["email"]
    provider.userinfo["sub"] = "somebody else"
    not_believed(browser.log_in())


def test_address_of_an_account_is_not_linked(
    provider: OidcProvider, browser: Browser, database_url: str
) -> None:
    """The account that registered an address stays its own, however the address is written."""
    name = f"owner-{uuid.uuid4().hex[:12]}"
    body = {"username": name, "email": f"{name}@example.com", "password": "correct horse battery"}
    assert 201 == browser.post("/api/v1/auth/register", json=body).status_code
    provider.person["email"] = f"{name.upper()}@Example.com"
    answer = browser.log_in()
    refused(answer, 409, "An account with this e-mail address exists; log in with its password")
    subject = provider.person["sub"]
    statement = "SELECT id FROM identities WHERE subject = :subject"
    assert [] == query(database_url, statement, subject=subject)


def test_taken_name_gets_a_suffix(provider: OidcProvider, browser: Browser) -> None:
    """Two people of one name get two accounts."""
    wanted = f"twin-{uuid.uuid4().hex[:8]}"
    names = []
    for number in range(2):
        provider.person_is(f"{wanted}.{number}", preferred_username=f"{wanted}@corp.example")
        names.append(me(browser, browser.log_in())["username"])
    assert wanted == names[0]
    assert names[1].startswith(f"{wanted}-")


def test_disabled_account_stays_out(
    provider: OidcProvider, browser: Browser, database_url: str
) -> None:
    """A valid ID token does not log in to a disabled account."""
    user = me(browser, browser.log_in())
    query(database_url, "UPDATE users SET is_active = false WHERE id = :id", id=user["id"])
    not_believed(browser.log_in())
