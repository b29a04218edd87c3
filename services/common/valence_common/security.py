"""Access tokens: issued by auth, and verified by every service on its own.

This is the only module that imports python-jose. That library is lenient (tokens without `exp` or
`aud`, other algorithms, unknown headers, altered padding), so the form and the header are checked
before the signature, and the claims are then decoded into a closed type.
"""

import base64
import binascii
import time
import uuid
from collections.abc import Iterable
from typing import Final

import msgspec
from jose import jws
from jose.backends.cryptography_backend import CryptographyHMACKey

from valence_common.db import new_id
from valence_common.keyring import Keyring
from valence_common.problems import InvalidCredential

ISSUER: Final = "valence"
AUDIENCE: Final = "valence"
ALGORITHM: Final = "HS256"
TOKEN_TYPE: Final = "at+jwt"  # noqa: S105 - RFC 9068, a media type
LEEWAY_SECONDS: Final = 30
MAX_LIFETIME_SECONDS: Final = 3600
MAX_TOKEN_BYTES: Final = 4096
ADMIN: Final = "admin"
SCOPES: Final = {
    "analyze": "score one text",
    "batch": "score many texts, and follow their progress",
    "history": "read and delete the history of scored texts",
    ADMIN: "administer accounts",
}
"""The scopes of credentials; API keys may have all but the last."""


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    typ: str
    kid: str


class _Claims(msgspec.Struct, forbid_unknown_fields=True):
    iss: str
    aud: str
    sub: uuid.UUID
    sid: uuid.UUID
    jti: uuid.UUID
    iat: int
    nbf: int
    exp: int
    scope: str


class Principal(msgspec.Struct, frozen=True):
    """The user, credential and scopes of an authenticated request.

    Exactly one of `session_id` and `key_id` is set; `expires_at` is a Unix time.
    """

    user_id: uuid.UUID
    scopes: frozenset[str]
    expires_at: float
    session_id: uuid.UUID | None = None
    key_id: uuid.UUID | None = None

    @property
    def credential_id(self) -> uuid.UUID | None:
        """The id of the session or API key, by which it is revoked."""
        return self.session_id or self.key_id


def issue(
    keyring: Keyring,
    *,
    user_id: uuid.UUID,
    session_id: uuid.UUID,
    scopes: Iterable[str],
    lifetime_seconds: int,
) -> str:
    """Return a signed access token for one login session."""
    now = int(time.time())
    claims = _Claims(
        iss=ISSUER,
        aud=AUDIENCE,
        sub=user_id,
        sid=session_id,
        jti=new_id(),
        iat=now,
        nbf=now,
        exp=now + lifetime_seconds,
        scope=" ".join(scopes),
    )
    key = keyring.active()
    token: str = jws.sign(
        msgspec.json.encode(claims),
        CryptographyHMACKey(key.secret, ALGORITHM),
        headers={"typ": TOKEN_TYPE, "kid": key.kid},
        algorithm=ALGORITHM,
    )
    return token


def verify(keyring: Keyring, token: str) -> Principal:
    """Return the token's principal; raise `InvalidCredential` for any defect."""
    try:
        claims = _verified_claims(keyring, token)
    except InvalidCredential:
        raise
    except Exception as error:
        raise InvalidCredential from error
    now = time.time()
    if (
        claims.iss != ISSUER
        or claims.aud != AUDIENCE
        or claims.exp + LEEWAY_SECONDS <= now
        or claims.nbf - LEEWAY_SECONDS > now
        or claims.iat - LEEWAY_SECONDS > now
        or not 0 < claims.exp - claims.iat <= MAX_LIFETIME_SECONDS
    ):
        raise InvalidCredential
    return Principal(claims.sub, frozenset(claims.scope.split()), claims.exp, session_id=claims.sid)


def _verified_claims(keyring: Keyring, token: str) -> _Claims:
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidCredential
    parts = token.encode("ascii").split(b".")
    if len(parts) != 3:
        raise InvalidCredential
    decoded_header, *_ = [_canonical(part) for part in parts]
    header = msgspec.json.decode(decoded_header, type=_Header)
    if header.alg != ALGORITHM or header.typ != TOKEN_TYPE:
        raise InvalidCredential
    key = keyring.verification_key(header.kid)
    if key is None:
        raise InvalidCredential
    payload = jws.verify(token, CryptographyHMACKey(key.secret, ALGORITHM), algorithms=[ALGORITHM])
    return msgspec.json.decode(payload, type=_Claims)


def _canonical(part: bytes) -> bytes:
    """Decode a base64url part; reject all but its canonical form (padding, stray bits)."""
    try:
        decoded = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise InvalidCredential from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise InvalidCredential
    return decoded
