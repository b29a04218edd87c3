"""ID tokens: whether the provider said this, to us, for this login, just now."""

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

# Headers that we do not know are ignored, as RFC 7515 wants it; `crit` is not.
_registry = jws.JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)

ProviderKey = RSAKey | ECKey


class Refused(InvalidCredential):
    """The token is not to be believed; `reason` names the rule for the log, never a value."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason


class UnknownKey(Refused):
    """No key of the provider that we know fits; it may have a new one."""


class Expected(NamedTuple):
    """What an ID token must say."""

    issuer: str
    client_id: str
    nonce: str


class Claims(msgspec.Struct, kw_only=True):
    """What an ID token says; claims that are no proof may be missing or odd."""

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
    """The public keys of a JWKS that may verify signatures; others are passed over."""
    keys: list[ProviderKey] = []
    for jwk in jwks:
        if jwk.get("kty") not in ("RSA", "EC") or jwk.get("use", "sig") != "sig":
            continue
        # What the library cannot read, it tells in errors of many kinds.
        with contextlib.suppress(Exception):
            key = JWKRegistry.import_key(jwk)
            if isinstance(key, ECKey) or (isinstance(key, RSAKey) and _is_strong(key)):
                keys.append(key)
    return keys


def _is_strong(key: RSAKey) -> bool:
    return key.public_key.key_size >= MIN_RSA_BITS


def verify(token: str, keys: Sequence[ProviderKey], expected: Expected) -> Claims:
    """The claims of a token; raises `Refused` for whatever is wrong with it."""
    try:
        claims = _signed_claims(token, keys)
    except Refused:
        raise
    except Exception as error:
        raise Refused("form") from error
    if reason := _fault(claims, expected):
        raise Refused(reason)
    return claims


def _signed_claims(token: str, keys: Sequence[ProviderKey]) -> Claims:
    if len(token) > MAX_TOKEN_BYTES:
        raise Refused("size")
    signed = jws.extract_compact(token.encode("ascii"), registry=_registry)
    header = signed.headers()
    if header["alg"] not in ALGORITHMS:
        raise Refused("algorithm")
    key = _choose(keys, header["alg"], header.get("kid"))
    if not jws.validate_compact(signed, key, registry=_registry):
        raise Refused("signature")
    return msgspec.json.decode(signed.payload, type=Claims)


def _choose(keys: Sequence[ProviderKey], algorithm: str, kid: object) -> ProviderKey:
    """The one key that the header means: by its name, or by being the only one of its kind."""
    kind = ECKey if algorithm.startswith("ES") else RSAKey
    fitting = [
        key
        for key in keys
        if isinstance(key, kind)
        and key.get("alg", algorithm) == algorithm
        and (kid is None or key.kid == kid)
    ]
    if len(fitting) != 1:
        raise UnknownKey("key")
    return fitting[0]


def _fault(claims: Claims, expected: Expected) -> str | None:
    """The first rule of OpenID Connect Core 3.1.3.7 that the claims break."""
    now = time.time()
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    wants_azp = len(audiences) > 1 or claims.azp is not None
    rules = {
        "iss": claims.iss == expected.issuer,
        "aud": expected.client_id in audiences,
        "azp": not wants_azp or claims.azp == expected.client_id,
        "exp": claims.exp + LEEWAY_SECONDS > now,
        "iat": claims.iat - LEEWAY_SECONDS <= now,
        "nbf": claims.nbf - LEEWAY_SECONDS <= now,
        "nonce": claims.nonce == expected.nonce,
        "sub": 0 < len(claims.sub) <= MAX_SUBJECT and claims.sub.isascii(),
        "sub's letters": claims.sub.isprintable(),
    }
    return next((rule for rule, holds in rules.items() if not holds), None)
