"""Access tokens: issue and verification."""

import time
import uuid
from pathlib import Path

import pytest

from support.tokens import DROP, Forge
from valence_common import security
from valence_common.keyring import Keyring
from valence_common.problems import InvalidCredential
from valence_common.security import LEEWAY_SECONDS, MAX_LIFETIME_SECONDS, issue, verify


@pytest.fixture
def forge(keyring_file: Path) -> Forge:
    return Forge(keyring_file)


def test_issued_tokens_verify(keys: Keyring) -> None:
    """A token has its user, session, scopes and expiry, and an id of its own."""
    user_id, session_id = uuid.uuid4(), uuid.uuid4()
    tokens = {
        issue(
            keys,
            user_id=user_id,
            session_id=session_id,
            scopes=["analyze", "batch"],
            lifetime_seconds=600,
        )
        for _ in "ab"
    }
    assert 2 == len(tokens)
    for token in tokens:
        principal = verify(keys, token)
        assert (user_id, session_id) == (principal.user_id, principal.session_id)
        assert frozenset({"analyze", "batch"}) == principal.scopes
        assert 595 < principal.expires_at - time.time() <= 600


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_changed_character_is_rejected(keys: Keyring, part: int) -> None:
    """Also one whose bits are not used by base64."""
    token = issue(
        keys, user_id=uuid.uuid4(), session_id=uuid.uuid4(), scopes=[], lifetime_seconds=600
    )
    parts = token.split(".")
    for index, character in enumerate(parts[part]):
        other = "A" if character != "A" else "B"
        changed = list(parts)
        changed[part] = parts[part][:index] + other + parts[part][index + 1 :]
        with pytest.raises(InvalidCredential):
            verify(keys, ".".join(changed))


@pytest.mark.parametrize(
    ("offsets", "good"),
    [
        ({"exp": -LEEWAY_SECONDS - 1}, False),
        ({"exp": -LEEWAY_SECONDS}, False),
        ({"exp": -LEEWAY_SECONDS + 1}, True),
        ({"exp": 1}, True),
        ({"nbf": LEEWAY_SECONDS}, True),
        ({"nbf": LEEWAY_SECONDS + 1}, False),
        ({"iat": LEEWAY_SECONDS, "exp": 600}, True),
        ({"iat": LEEWAY_SECONDS + 1, "exp": 600}, False),
        ({"iat": 0, "exp": MAX_LIFETIME_SECONDS}, True),
        ({"iat": 0, "exp": MAX_LIFETIME_SECONDS + 1}, False),
        ({"iat": 0, "exp": 0}, False),
    ],
)
def test_edges_of_time(
    keys: Keyring,
    forge: Forge,
    monkeypatch: pytest.MonkeyPatch,
    offsets: dict[str, int],
    *,
    good: bool,
) -> None:
    """The limits of exp, nbf, iat and the lifetime are as documented."""
    now = int(time.time())
    monkeypatch.setattr(security.time, "time", lambda: float(now))
    times = {"iat": -600, "nbf": -600, "exp": 600} | offsets
    token = forge.token(claims={name: now + offset for name, offset in times.items()})
    if good:
        assert forge.user_id == str(verify(keys, token).user_id)
    else:
        with pytest.raises(InvalidCredential):
            verify(keys, token)


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "scope"])
def test_every_claim_is_required(keys: Keyring, forge: Forge, name: str) -> None:
    """python-jose accepts tokens without most of them."""
    assert verify(keys, forge.token())
    with pytest.raises(InvalidCredential):
        verify(keys, forge.token(claims={name: DROP}))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "\u2603.a.b",
        "\ud800",
        "x" * 4097,
        "[" * 4000,
        "." * 4000,
        "\0.\0.\0",
    ],
)
def test_all_defects_have_one_error(keys: Keyring, token: str) -> None:
    """The error does not say what is wrong."""
    with pytest.raises(InvalidCredential) as refused:
        verify(keys, token)
    assert "Could not validate credentials" == refused.value.message


def test_unknown_and_ended_keys_do_not_verify(keys: Keyring, forge: Forge) -> None:
    """Tokens of unknown and expired keys are rejected."""
    with pytest.raises(InvalidCredential):
        verify(keys, forge.token({"kid": "unknown"}))
