"""Verification of ID tokens: claims, signatures, keys."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.oidc_login import (
    CALLBACK,
    Browser,
    as_client,
    claims_of,
    not_believed,
)
from support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    EcSigner,
    OidcProvider,
    RsaSigner,
    signed,
)
from support.rows import query
from support.stack import Service
from support.tokens import DROP, encode, sign
from valence_common.problems import InvalidCredential


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": DROP},
        {"aud": "another client"},
        {"aud": []},
        {"aud": [CLIENT_ID, "another client"]},
        {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
        {"azp": "another client"},
        {"aud": DROP},
        {"iss": "https://elsewhere.example"},
        {"iss": DROP},
        {"exp": time.time() - 3600},
        {"exp": DROP},
        {"exp": "tomorrow"},
        {"iat": time.time() + 3600},
        {"iat": DROP},
        {"nbf": time.time() + 3600},
        {"sub": ""},
        {"sub": DROP},
        {"sub": 7},
        {"sub": "a\0b"},
        {"sub": "s" * 256},
        {"sub": "\u00fc"},
        {"filler": "x" * 8192},
    ],
    ids=lambda claims: "-".join(claims) or "all",
)
def test_id_token_has_the_expected_claims(
    provider: OidcProvider, browser: Browser, claims: dict[str, Any]
) -> None:
    """A token that the right key signed is rejected for one wrong claim."""
    provider.claims = claims
    not_believed(browser.log_in())


def test_log_names_the_rule(provider: OidcProvider, browser: Browser, auth: Service) -> None:
    """The log names the violated rule, without anything that was submitted."""
    provider.claims = {"nonce": "SECRETIVE"}
    not_believed(browser.log_in())
    state = parse_qs(urlsplit(browser.begin().headers["Location"]).query)["state"][0]
    not_believed(browser.get(CALLBACK, params={"state": state, "error": "SECRETIVE"}))
    not_believed(browser.get(CALLBACK, params={"state": state, "code": "SECRETIVE"}))
    events = [json.loads(line) for line in auth.output().splitlines()]
    reasons = [event["reason"] for event in events if event["event"] == "oidc_refused"]
    assert ["nonce", "other", "invalid_grant"] == reasons[-3:]


HS256 = {"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}


STRANGER = RsaSigner("rsa-1")


FORGED: dict[str, Callable[[Any, RsaSigner], str]] = {
    "none": lambda claims, _: sign({"alg": "none"}, claims, b"", "sha256").rpartition(".")[0] + ".",
    "hs256-with-the-secret": lambda claims, _: sign(
        HS256, claims, CLIENT_SECRET.encode(), "sha256"
    ),
    "hs256-with-the-public-key": lambda claims, rsa: sign(
        HS256, claims, json.dumps(rsa.jwk).encode(), "sha256"
    ),
    "strangers-key": lambda claims, _: signed(STRANGER, claims),
    "strangers-key-inside": lambda claims, _: signed(STRANGER, claims, jwk=STRANGER.jwk),
    "unknown-kid": lambda claims, _: signed(RsaSigner("unknown"), claims),
    "other-kind": lambda claims, rsa: signed(rsa, claims, alg="ES256"),
    "other-hash": lambda claims, rsa: signed(rsa, claims, alg="RS512"),
    "critical-header": lambda claims, rsa: signed(rsa, claims, crit=["exp"]),
    "cut": lambda claims, rsa: signed(rsa, claims)[:-8],
    "four-parts": lambda claims, rsa: signed(rsa, claims) + ".x",
    "no-ascii": lambda *_: "é.é.é",
    "empty": lambda *_: "",
    "deep-header": lambda *_: f"{encode(b'[' * 5000)}.e30.e30",
    "list": lambda _, rsa: signed(rsa, ["no", "claims"]),
}


@pytest.mark.parametrize("forged", FORGED)
def test_id_token_must_be_signed_by_the_provider(
    provider: OidcProvider,
    browser: Browser,
    forged: str,
    database_url: str,
) -> None:
    """Right claims with a wrong signature: 401, and no account is created."""
    provider.make_token = lambda claims: FORGED[forged](claims, provider.rsa)
    not_believed(browser.log_in())
    email = provider.person["email"]
    assert [] == query(database_url, "SELECT id FROM users WHERE email = :email", email=email)


@pytest.mark.parametrize("signer", [EcSigner("ec-1"), RsaSigner("ps-1", "PS256")])
def test_other_algorithms(auth: Service, provider: OidcProvider, signer: Any) -> None:
    """ES256 and PS256, with a key set that also holds unusable keys."""
    odd = [{"kty": "oct", "kid": "s", "k": "AAAA"}, {"kty": "AKP", "kid": "q"}, {"kty": "RSA"}, {}]
    odd += [{"kty": "EC", "crv": "P-1", "kid": "c", "x": "AA", "y": "AA"}, {"kty": "RSA", "n": 1}]
    provider.signer, provider.keys = signer, [*odd, provider.rsa.jwk, signer.jwk]
    claims = asyncio.run(claims_of(as_client(provider), provider))
    assert provider.person["sub"] == claims.sub


def test_keys_are_fetched_again(provider: OidcProvider) -> None:
    """Once for a new key; an unknown one causes no further request within a minute."""

    async def work() -> None:
        client = as_client(provider)
        await claims_of(client, provider)
        new = RsaSigner("rsa-2")
        provider.signer, provider.keys = new, [provider.rsa.jwk, new.jwk]
        provider.requests.clear()
        for _ in range(3):
            await claims_of(client, provider)
        assert 1 == provider.requests.count("/jwks")
        provider.signer = RsaSigner("unknown")
        for _ in range(3):
            with pytest.raises(InvalidCredential):
                await claims_of(client, provider)
        assert 1 == provider.requests.count("/jwks")
        assert 0 == provider.requests.count("/.well-known/openid-configuration")

    asyncio.run(work())


def test_header_without_kid_means_the_only_key(provider: OidcProvider) -> None:
    """A token without `kid` is accepted while one key matches, and rejected when two do."""

    async def work() -> None:
        provider.make_token = lambda claims: signed(provider.rsa, claims, kid=DROP, typ=DROP)
        provider.keys = [provider.rsa.jwk, EcSigner("ec-1").jwk]
        assert (await claims_of(as_client(provider), provider)).sub
        provider.keys = [provider.rsa.jwk, RsaSigner("rsa-2").jwk]
        with pytest.raises(InvalidCredential):
            await claims_of(as_client(provider), provider)

    asyncio.run(work())


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_weak_key_is_not_used(provider: OidcProvider) -> None:
    """A signature of a 1024-bit RSA key is rejected."""
    weak = RsaSigner("weak", bits=1024)
    provider.signer, provider.keys = weak, [weak.jwk]
    with pytest.raises(InvalidCredential):
        asyncio.run(claims_of(as_client(provider), provider))
