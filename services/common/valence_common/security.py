"""Access tokens: made by auth, checked by every service on its own, with strict checks first.

The only file that touches python-jose. It accepts much that we do not mean (tokens without `exp`
or `aud`, other algorithms, foreign headers, changed padding), so everything about a token is
compared before its signature is, and its claims are decoded into a closed type after.
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
    "batch": "score many, and follow them",
    "history": "read and delete what was scored",
    ADMIN: "administer accounts",
}
"""What a credential may be for; API keys take all but the last."""


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
    """Who a request acts for, through which login session or API key, and what that allows.

    Exactly one of `session_id` and `key_id` is set; `expires_at` is a Unix time.
    """

    user_id: uuid.UUID
    scopes: frozenset[str]
    expires_at: float
    session_id: uuid.UUID | None = None
    key_id: uuid.UUID | None = None

    @property
    def credential_id(self) -> uuid.UUID | None:
        """The session or key, as revocations name it."""
        return self.session_id or self.key_id


def issue(
    keyring: Keyring,
    *,
    user_id: uuid.UUID,
    session_id: uuid.UUID,
    scopes: Iterable[str],
    lifetime_seconds: int,
) -> str:
    """Sign an access token for one login session."""
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
    """The token's principal; raises `InvalidCredential` for whatever is wrong with it."""
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
    """Decode one base64url part that has exactly one spelling: no padding, no stray bits."""
    try:
        decoded = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise InvalidCredential from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise InvalidCredential
    return decoded
