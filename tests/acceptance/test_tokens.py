"""Reliability cases 65 to 78: access tokens that every service must reject."""

import base64
import json
import re
import subprocess
import sys
import time
import uuid
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.invariants import CheckedClient
from support.raw import message
from support.stack import Account, Stack
from support.tokens import DROP, Forge, encode, sign
from valence_common import keyring

ME = "/api/v1/users/me"
HISTORY = "/api/v1/sentiment/history"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def forge(stack: Stack, account: Account) -> Forge:
    """Signs for a real account with the stack's real key."""
    return Forge(stack.keyring, account.id)


def _judge(checked: CheckedClient, token: str) -> None:
    """Every service refuses the token with one and the same 401."""
    for path in (ME, HISTORY):
        answer = checked.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        seen = (answer.status_code, answer.json()["detail"], answer.headers["www-authenticate"])
        expected = (401, "Could not validate credentials", 'Bearer error="invalid_token"')
        assert expected == seen, token[:200]


def _believed(checked: CheckedClient, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    answers = {checked.request("GET", p, headers=headers).status_code for p in (ME, HISTORY)}
    assert len(answers) == 1, "the services disagree"
    return answers == {200}


def test_the_forge_makes_good_tokens(checked: CheckedClient, forge: Forge) -> None:
    """What the cases below change is all that is wrong with their tokens."""
    assert _believed(checked, forge.token())


def test_case_065_no_algorithm(checked: CheckedClient, forge: Forge) -> None:
    """A token that names no algorithm, or none that is one, is refused, signed or not."""
    for name in ("none", "None", "nOnE", "NONE", "", DROP, ["HS256"], 256, None, {"HS256": 1}):
        signed = forge.token({"alg": name})
        _judge(checked, signed)
        _judge(checked, signed.rpartition(".")[0] + ".")
        _judge(checked, signed.rpartition(".")[0])


def test_case_066_algorithm_confusion(checked: CheckedClient, forge: Forge) -> None:
    """Only HS256 with our key: not a bigger HMAC, not a public key as its secret."""
    for name, digest in (("HS384", "sha384"), ("HS512", "sha512")):
        _judge(checked, sign(forge.header(alg=name), forge.claims(), forge.secret, digest))
        _judge(checked, sign(forge.header(), forge.claims(), forge.secret, digest))
    public = rsa.generate_private_key(65537, 2048).public_key()
    encodings = serialization.Encoding, serialization.PublicFormat
    for encoding, form in (
        (encodings[0].PEM, encodings[1].SubjectPublicKeyInfo),
        (encodings[0].DER, encodings[1].SubjectPublicKeyInfo),
        (encodings[0].OpenSSH, encodings[1].OpenSSH),
    ):
        _judge(
            checked,
            sign(forge.header(), forge.claims(), public.public_bytes(encoding, form), "sha256"),
        )
    for name in ("RS256", "ES256", "PS256", "EdDSA", "hs256", "HS256 ", "HS256\0"):
        _judge(checked, forge.token({"alg": name}))
    _judge(checked, sign(forge.header(), forge.claims(), b"", "sha256"))


def test_case_066_every_decode_names_its_algorithms() -> None:
    """python-jose is imported in one file, and verifies with a closed list there."""
    sources = {p: p.read_text() for p in (ROOT / "services").rglob("*.py")}
    using = [
        p.name
        for p, text in sources.items()
        if re.search(r"^\s*(from|import) jose\b", text, re.MULTILINE)
    ]
    assert ["security.py"] == using
    calls = re.findall(r"\b(?:jws|jwt)\.(?:verify|decode)\(.*\)", "".join(sources.values()))
    assert calls
    assert all("algorithms=[ALGORITHM]" in call for call in calls)


def test_case_068_foreign_headers(checked: CheckedClient, forge: Forge) -> None:
    """A header has alg, typ and kid and nothing else; nothing in it is fetched or obeyed."""
    for name, value in (
        ("jwk", {"kty": "oct", "k": encode(forge.secret)}),
        ("jku", "http://127.0.0.1:9/keys"),
        ("x5u", "http://127.0.0.1:9/cert"),
        ("x5c", ["MIIB"]),
        ("crit", ["zz"]),
        ("crit", []),
        ("b64", False),
        ("zip", "DEF"),
        ("cty", "JWT"),
        ("unknown", None),
    ):
        _judge(checked, forge.token({name: value}))
    for kid in ("", "../../../../dev/null", "' OR 1=1 --", DROP, None, 1, ["a"], "x" * 2000):
        _judge(checked, forge.token({"kid": kid}))


def test_case_070_huge_and_encrypted(
    checked: CheckedClient, forge: Forge, account: Account
) -> None:
    """Size and shape decide before anything is decoded: 4 KiB, three parts."""
    bomb = zlib.compress(b" " * 50 * 1024 * 1024)
    jwe = {"alg": "dir", "enc": "A256GCM", "zip": "DEF", "kid": forge.kid}
    slow = {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 10**9, "p2s": "AAAA"}
    for token in (
        "x" * 8193,
        "." * 8193,
        "x" * 4096,
        forge.token(claims={"scope": "x" * 4096}),
        "." * 2,
        "a.b",
        "a.b.c",
        "a.b.c.d",
        ".".join(map(encode, (json.dumps(jwe).encode(), b"", b"i" * 12, bomb[:2000], b"t" * 16))),
        ".".join(map(encode, (json.dumps(slow).encode(), b"k" * 24, b"i" * 12, b"a", b"t" * 16))),
        encode(b'{"alg":' * 200) + ".e30.e30",
    ):
        started = time.monotonic()
        _judge(checked, token)
        assert time.monotonic() - started < 1
    for token in ("x" * 60 * 1024, "." * 1_000_000):
        head = message("GET", ME, b"Authorization: Bearer " + token.encode())
        assert [431] == [answer.status for answer in checked.raw(ME, head)]


def test_case_070_one_spelling(checked: CheckedClient, account: Account) -> None:
    """A token has one spelling: padding, stray bits, blanks and changed bits are all refused."""
    header, claims, signature = account.token.split(".")
    stray = signature[:-1] + chr(ord(signature[-1]) + 1)
    same = base64.urlsafe_b64decode(signature + "=") == base64.urlsafe_b64decode(stray + "=")
    assert same, "the stray bit must not change the bytes"
    for token in (
        f"{header}.{claims}.{stray}",
        f"{header}=.{claims}.{signature}",
        f"{header}.{claims}.{signature}=",
        f"{header}.{claims}.{signature[:-1]}",
        f"{header}.{claims}.{signature[::-1]}",
        f"{header}.{claims[:-1]}.{signature}",
        f"{header}.{claims}. {signature}",
        f"{header}. .{signature}",
        f"..{signature}",
        f"{header}.{claims}.",
    ):
        _judge(checked, token)


def test_case_072_missing_and_odd_claims(checked: CheckedClient, forge: Forge) -> None:
    """Every claim is required and has one type; there are no others."""
    for name in ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "scope"):
        for value in (DROP, None, [], {}, True, 1.5, "", 10**30, "9" * 30):
            if name != "scope" or not isinstance(value, str):
                _judge(checked, forge.token(claims={name: value}))
    _judge(checked, forge.token({"typ": DROP}))
    _judge(checked, forge.token(claims={"unknown": 1}))
    for claims in (b"", b"null", b"[]", b"{}", b'"x"', b"[" * 2000, b"\xff", b"NaN"):
        _judge(checked, forge.sign(forge.header(), claims))
    for header in (b"", b"null", b"[]", b"[" * 2000, b"\xff"):
        _judge(checked, forge.sign(header, forge.claims()))


def test_case_073_cross_use(checked: CheckedClient, forge: Forge, account: Account) -> None:
    """A token is for one use, one issuer and one installation."""
    _judge(checked, account.refresh_token)
    for claims in (
        {"aud": "other"},
        {"aud": ["valence"]},
        {"aud": "valence "},
        {"iss": "staging"},
        {"iss": "VALENCE"},
    ):
        _judge(checked, forge.token(claims=claims))
    for kind in ("JWT", "jwt", "AT+JWT", "application/at+jwt", "rt+jwt", ""):
        _judge(checked, forge.token({"typ": kind}))
    other = keyring.generate()
    path = checked.stack.folder / "other-keyring.json"
    path.write_bytes(other)
    _judge(checked, Forge(path, account.id).token())
    _judge(checked, Forge(path, account.id).token({"kid": forge.kid}))
    headers = {"X-API-Key": account.token}
    assert 401 == checked.request("GET", ME, headers=headers).status_code
    _judge(checked, "vl_0123_456789abcdef")
    unknown = Forge(checked.stack.keyring, str(uuid.uuid4())).token()
    answer = checked.request("GET", ME, headers={"Authorization": f"Bearer {unknown}"})
    assert 401 == answer.status_code


def test_case_074_time_boundaries(checked: CheckedClient, forge: Forge) -> None:
    """30 seconds of leeway on each side; a life of at most an hour, whoever signed it."""
    now = int(time.time())
    for claims, expected in (
        ({"iat": now - 600, "nbf": now - 600, "exp": now - 31}, False),
        ({"iat": now - 600, "nbf": now - 600, "exp": now - 10}, True),
        ({"iat": now - 600, "nbf": now - 600, "exp": now + 1}, True),
        ({"nbf": now + 45}, False),
        ({"nbf": now + 15}, True),
        ({"iat": now + 45}, False),
        ({"iat": now + 15}, True),
        ({"iat": now + 365 * 86400, "exp": now + 365 * 86400 + 600}, False),
        ({"exp": now + 100 * 365 * 86400}, False),
        ({"exp": now + 3600, "iat": now}, True),
        ({"exp": now + 3601, "iat": now}, False),
        ({"exp": now, "iat": now}, False),
        ({"exp": now - 20, "iat": now - 10}, False),
        ({"iat": -(2**63), "exp": now + 600}, False),
    ):
        assert expected == _believed(checked, forge.token(claims=claims)), claims


def test_case_076_transport(checked: CheckedClient, account: Account) -> None:
    """Exactly one `Authorization: Bearer` header; nothing else carries a token."""
    token = account.token.encode()
    bearer = b"Authorization: Bearer " + token
    for fields, expected in (
        ([bearer], 200),
        ([b"authorization: bearer " + token], 200),
        ([b"AUTHORIZATION: BEARER " + token], 200),
        ([bearer, bearer], 401),
        ([bearer, b"Authorization: Basic YTpi"], 401),
        ([b"Authorization: Bearer\t" + token], 401),
        ([b"Authorization: Bearer  " + token], 401),
        ([b"Authorization: Bearer " + token + b", Bearer " + token], 401),
        ([b"Authorization: Bearer " + token + b"," + token], 401),
        ([b"Authorization: Bearer"], 401),
        ([b"Authorization: "], 401),
        ([b"Authorization: " + token], 401),
        ([b"Authorization: Token " + token], 401),
        ([b"Authorization: Bearer \xff\xfe"], 401),
        ([b"Cookie: access_token=" + token + b"; Authorization=Bearer " + token], 401),
        ([b"X-Access-Token: " + token], 401),
        ([b"Proxy-Authorization: Bearer " + token], 401),
    ):
        for path in (ME, HISTORY):
            (answer,) = checked.raw(path, message("GET", path, *fields))
            assert expected == answer.status, fields
    for path in (ME, HISTORY):
        for query in (f"access_token={account.token}", f"token={account.token}"):
            answer = checked.request("GET", f"{path}?{query}")
            assert (401, "Not authenticated") == (answer.status_code, answer.json()["detail"])


def test_case_078_weak_keys_stop_the_start(tmp_path: Path) -> None:
    """A real process, for one of the keys that test_keyring.py holds against both services."""
    file = tmp_path / "keyring.json"
    key = "A" * 43
    entry = {"kid": "one", "key": key}
    file.write_text(json.dumps({"active": "one", "keys": [entry]}))
    process = subprocess.run(
        [sys.executable, "-m", "valence_auth"],
        env={
            "VALENCE_DATABASE_URL": "postgresql://valence:quite-fine@127.0.0.1:1/valence",
            "VALENCE_REDIS_URL": "redis://127.0.0.1:1",
            "VALENCE_JWT_KEYRING_FILE": str(file),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert 78 == process.returncode
    assert "VALENCE_JWT_KEYRING_FILE" in process.stderr
    assert 1 == len(process.stderr.splitlines())
    assert key not in process.stderr
