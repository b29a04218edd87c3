"""Batches made and worked on by calling the nouns, without any process."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from support.uploads import any_url
from valence_batch_worker.batches import chunks
from valence_common.db import new_id
from valence_common.models import Batch, User
from valence_inference.batches import submit
from valence_inference.batches.submission import Submission
from valence_inference.uploads.chunking import UploadLimits
from valence_inference.uploads.upload import JsonUpload
from valence_ml import Score


def make_user(session: Session) -> uuid.UUID:
    """An account, by its row."""
    name = f"user-{new_id().hex}"
    user = User(
        username=name,
        username_key=name,
        email=f"{name}@example.com",
        email_key=f"{name}@example.com",
        password_hash="!",
    )
    session.add(user)
    session.flush()
    return user.id


def make_batch(session: Session, texts: Sequence[str], *, chunk_texts: int = 2) -> Batch:
    """Store a batch of a new user as the inference service does."""
    return accept(session, make_user(session), texts, chunk_texts=chunk_texts)


def accept(
    session: Session,
    user_id: uuid.UUID,
    texts: Sequence[str],
    *,
    chunk_texts: int = 2,
    key: str | None = None,
    **options: Any,
) -> Batch:
    """Store a batch of this user, uploaded as JSON."""
    submission = packed(texts, chunk_texts=chunk_texts, **options)
    outcome = submit.store(session, user_id, submission, key=key)
    return session.get_one(Batch, outcome.batch_id)


def packed(texts: Sequence[str], *, chunk_texts: int = 2, **options: Any) -> Submission:
    """Return the submission of a JSON body with these texts."""
    limits = UploadLimits(10_000, 100_000, chunk_texts, 32 * 1024 * 1024)
    upload = JsonUpload(limits, any_url)
    upload.feed(json.dumps({"texts": texts, **options}).encode())
    return upload.end()


def claim(session: Session, *, lease_seconds: float = 30, max_attempts: int = 3) -> chunks.Claim:
    """The next chunk, which must exist."""
    mine = chunks.claim(session, lease_seconds=lease_seconds, max_attempts=max_attempts)
    assert mine is not None
    return mine


def score(texts: Sequence[str]) -> list[Score]:
    """What a model would say."""
    return [Score("positive", 0.75, 0.75, low_confidence=False) for _ in texts]
