"""What a receiver checks: `t=<unix time>,v1=<HMAC-SHA256 in hex>`, as Stripe made it known."""

import hashlib
import hmac
from collections.abc import Sequence


def signature(secrets: Sequence[str], body: bytes, *, at: int) -> str:
    """The header of one attempt: the time, and a `v1` for each living secret.

    The key is the whole secret as it is written, the message `<time>.<body>`.
    """
    message = b"%d.%b" % (at, body)
    signed = [hmac.new(secret.encode(), message, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={at}", *(f"v1={digest}" for digest in signed)])
