"""Accounts: canonical usernames and addresses, and their uniqueness."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from valence_auth import accounts
from valence_auth.accounts import (
    MAX_EMAIL,
    AlreadyRegistered,
    display_email,
    display_username,
    email_key,
    username_key,
)
from valence_common.problems import InvalidCredential


@pytest.mark.parametrize(
    ("given", "shown", "key"),
    [
        ("Ada", "Ada", "ada"),
        ("\uff21\uff44\uff41", "Ada", "ada"),
        ("ada\u2024b", "ada.b", "ada.b"),
        ("\u212aelvin", "Kelvin", "kelvin"),
        ("x" * 64, "x" * 64, "x" * 64),
        ("a-b_c.9", "a-b_c.9", "a-b_c.9"),
        ("\ufb01x", "fix", "fix"),
    ],
)
def test_usernames_have_one_canonical_form(given: str, shown: str, key: str) -> None:
    """Compatible characters and case are one username, displayed as it was chosen."""
    assert (shown, key) == (display_username(given), username_key(given))


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ab",
        "x" * 65,
        "a b",
        "ad\u0430",
        "ada\n",
        "ada\0",
        "@da",
        "ada\u200b",
        "\u00e4da",
        "a\ud800b",
    ],
)
def test_usernames_outside_the_allow_list(given: str) -> None:
    """Other alphabets, blanks and invisible characters are rejected, and find no account."""
    with pytest.raises(ValueError, match="must be 3 to 64"):
        display_username(given)
    assert username_key(given) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada@Example.com", "ada@example.COM"),
        ("\uff41da@example.com", "ada@example.com"),
        ("stra\u00dfe@example.com", "STRASSE@example.com"),
        ("ada@\uff45xample.com", "ada@example.com"),
        ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example"),
    ],
)
def test_email_addresses_have_one_canonical_form(one: str, other: str) -> None:
    """Addresses that look the same belong to one account."""
    assert email_key(display_email(one)) == email_key(display_email(other))


@given(local=st.text(max_size=70), domain=st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_email_address_fits_its_column_or_is_rejected(local: str, domain: str) -> None:
    """Any input becomes two strings that Postgres can store, or a ValueError."""
    for address in (f"{local}@{domain}", f"{local}@example.com", f"{local}@{domain}.com", local):
        try:
            shown = display_email(address)
        except ValueError:
            continue
        assert max(len(shown), len(email_key(shown))) <= MAX_EMAIL
        assert "\0" not in shown
        shown.encode()


def test_email_address_that_grows_is_rejected() -> None:
    """U+FDFA is one character that becomes eighteen: its canonical form would not fit."""
    with pytest.raises(ValueError, match="is too long"):
        display_email("\ufdfa" * 20 + "@example.com")


def _register(session: Session, username: str, email: str) -> None:
    accounts.register(session, username=username, email=email, password_hash="x")


@pytest.mark.parametrize(
    ("username", "email"),
    [
        ("grace", "other@example.com"),
        ("GRACE", "other@example.com"),
        ("other", "grace@example.com"),
        ("other", "GRACE@EXAMPLE.COM"),
        ("grace", "grace@example.com"),
    ],
)
def test_names_are_unique(session: Session, username: str, email: str) -> None:
    """A taken username and a taken address have the same error, which does not say which it is."""
    _register(session, "Grace", "Grace@example.com")
    with pytest.raises(AlreadyRegistered) as refused:
        _register(session, username, email)
    assert "Username or email already registered" == refused.value.message


def test_account_is_found_in_any_case(session: Session) -> None:
    """Login finds the account by its canonical username, and none for an invalid one."""
    _register(session, "Grace", "grace@example.com")
    for spelling in ("grace", "GRACE", "\uff27race"):
        found = accounts.find(session, spelling)
        assert found is not None
        assert "Grace" == found.username
    assert [None] * 3 == [accounts.find(session, n) for n in ("eve", "a\0a", "x" * 9999)]


def test_disabled_account_may_not_act(session: Session) -> None:
    """The token of a disabled or deleted account is rejected."""
    _register(session, "Grace", "grace@example.com")
    user = accounts.find(session, "grace")
    assert user is not None
    assert user is accounts.get_active(session, user.id)
    user.is_active = False
    session.flush()
    with pytest.raises(InvalidCredential):
        accounts.get_active(session, user.id)
    session.delete(user)
    session.flush()
    with pytest.raises(InvalidCredential):
        accounts.get_active(session, user.id)
