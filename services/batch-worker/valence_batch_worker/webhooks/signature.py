"""Signatures of webhooks by the Standard Webhooks specification, 1.0.0.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret
_FROM_URL_SAFE = str.maketrans("-_", "+/")


def signed_headers(
    secrets: Sequence[str], body: bytes, *, message_id: str, timestamp: int
) -> dict[str, str]:
    """Return the three headers of one attempt: id, Unix time in seconds, and signatures.

    `webhook-signature` has a `v1,<signature>` for each secret, separated by spaces.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{_sign(secret, content)}" for secret in secrets),
    }


def _sign(secret: str, content: bytes) -> str:
    digest = hmac.digest(_key(secret), content, hashlib.sha256)
    return base64.b64encode(digest).decode()


def _key(secret: str) -> bytes:
    """Decode the key of a secret.

    Secrets from before Standard Webhooks are stored in URL-safe Base64 without padding.
    """
    encoded = secret.removeprefix(SECRET_PREFIX).rstrip("=").translate(_FROM_URL_SAFE)
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
