"""Verification of ID tokens: issued by the provider, to this client, for this login, recently."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from joserfc import jws
from joserfc.jwk import ECKey, JWKRegistry, RSAKey

from valence_common.problems import InvalidCredential

ALGORITHMS: Final = [f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)]
MAX_TOKEN_BYTES: Final = 8 * 1024
MAX_SUBJECT: Final = 255
LEEWAY_SECONDS: Final = 60
MIN_RSA_BITS: Final = 2048

# Unknown headers are ignored, as RFC 7515 demands, except those that `crit` lists.
_registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)

ProviderKey = RSAKey | ECKey


class InvalidIdToken(InvalidCredential):
    """The token is invalid; `reason` names the violated rule for the log, never a value."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason


class UnknownKey(InvalidIdToken):
    """No known key of the provider matches; it may have rotated its keys."""


class ExpectedClaims(NamedTuple):
    """The values that an ID token must have."""

    issuer: str
    client_id: str
    nonce: str


class Claims(msgspec.Struct, kw_only=True):
    """The claims of an ID token; those that prove nothing may be missing or of any type."""

    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float
    nonce: str
    azp: str | None = None
    nbf: float = 0
    email: Any = None
    email_verified: Any = None
    preferred_username: Any = None


def usable_keys(jwks: Sequence[dict[str, Any]]) -> list[ProviderKey]:
    """Return the public keys of a JWKS that may verify signatures; skip all others."""
    keys: list[ProviderKey] = []
    for jwk in jwks:
        if jwk.get("kty") not in ("RSA", "EC") or jwk.get("use", "sig") != "sig":
            continue
        # The library raises errors of many types for keys that it cannot read.
        with contextlib.suppress(Exception):
            key = JWKRegistry.import_key(jwk)
            if isinstance(key, ECKey) or (isinstance(key, RSAKey) and _is_strong(key)):
                keys.append(key)
    return keys


def _is_strong(key: RSAKey) -> bool:
    return key.public_key.key_size >= MIN_RSA_BITS


def verify(token: str, keys: Sequence[ProviderKey], expected: ExpectedClaims) -> Claims:
    """Return the claims of a token; raise `InvalidIdToken` for any defect."""
    try:
        claims = _signed_claims(token, keys)
    except InvalidIdToken:
        raise
    except Exception as error:
        raise InvalidIdToken("form") from error
    if reason := _claims_error(claims, expected):
        raise InvalidIdToken(reason)
    return claims


def _signed_claims(token: str, keys: Sequence[ProviderKey]) -> Claims:
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidIdToken("size")
    signed = jws.extract_compact(token.encode("ascii"), registry=_registry)
    header = signed.headers()
    if header["alg"] not in ALGORITHMS:
        raise InvalidIdToken("algorithm")
    key = _select_key(keys, header["alg"], header.get("kid"))
    if not jws.validate_compact(signed, key, registry=_registry):
        raise InvalidIdToken("signature")
    return msgspec.json.decode(signed.payload, type=Claims)


def _select_key(keys: Sequence[ProviderKey], algorithm: str, kid: object) -> ProviderKey:
    """Return the key that the header names, or the only one of its type if it names none."""
    key_type = ECKey if algorithm.startswith("ES") else RSAKey
    candidates = [
        key
        for key in keys
        if isinstance(key, key_type)
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.kid == kid)
    ]
    if len(candidates) != 1:
        raise UnknownKey("key")
    return candidates[0]


def _claims_error(claims: Claims, expected: ExpectedClaims) -> str | None:
    """Return the first rule of OpenID Connect Core 3.1.3.7 that the claims violate."""
    now = time.time()
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    requires_azp = len(audiences) > 1 or claims.azp is not None
    rules = {
        "iss": claims.iss == expected.issuer,
        "aud": expected.client_id in audiences,
        "azp": not requires_azp or claims.azp == expected.client_id,
        "exp": claims.exp + LEEWAY_SECONDS > now,
        "iat": claims.iat - LEEWAY_SECONDS <= now,
        "nbf": claims.nbf - LEEWAY_SECONDS <= now,
        "nonce": claims.nonce == expected.nonce,
        "sub": 0 < len(claims.sub) <= MAX_SUBJECT and claims.sub.isascii(),
        "sub's letters": claims.sub.isprintable(),
    }
    return next((rule for rule, holds in rules.items() if not holds), None)
