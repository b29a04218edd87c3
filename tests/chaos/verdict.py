"""What a run is judged by: what went in came out, exactly once, whatever happened (Jepsen)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from support.rows import query

COUNT_EXECUTIONS = """
CREATE TABLE executions (chunk_id uuid NOT NULL);
CREATE FUNCTION count_execution() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO executions VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER count_execution AFTER UPDATE ON batch_chunks FOR EACH ROW
WHEN (OLD.state = 'pending' AND NEW.state = 'running') EXECUTE FUNCTION count_execution()
"""
"""Chunks that were cut in halves take their attempts with them, so these are written down."""


@dataclass(frozen=True)
class Sent:
    """One batch that a client sent until it got its 202; ids are those of the answers."""

    user_id: str
    texts: Sequence[str]
    task_ids: frozenset[str]


@dataclass
class Verdict:
    """The figures of one run."""

    seed: int
    faults: Mapping[str, int]
    seconds: float
    batches: int = 0
    chunks: int = 0
    executions: int = 0
    lost: int = 0
    doubled: int = 0
    complaints: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Nothing is lost, nothing doubled, nothing odd happened."""
        return not (self.lost or self.doubled or self.complaints)

    def line(self) -> str:
        """All of it for people."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        parts = [
            f"seed {self.seed}: {sum(self.faults.values())} faults ({kinds})",
            f"{self.batches} batches",
            f"{self.executions} executions of {self.chunks} chunks",
            f"{self.lost} lost",
            f"{self.doubled} doubled",
            f"{self.seconds:.0f} s",
        ]
        return "; ".join(parts) + "".join(f"\n  {complaint}" for complaint in self.complaints)


def judge(url: str, sent: Sequence[Sent], verdict: Verdict) -> Verdict:
    """Add to the verdict what the database says of all that was sent, each under one key."""
    for each in sent:
        batches = query(
            url,
            "SELECT id::text, status, total FROM batches WHERE user_id = :id",
            id=each.user_id,
        )
        found = {task_id for task_id, *_ in batches}
        verdict.batches += len(found)
        verdict.lost += len(each.texts) * len(each.task_ids - found)
        verdict.doubled += len(each.texts) * max(0, len(found) - 1)
        for task_id, status, total in batches:
            _judge_batch(url, task_id, each, verdict)
            if (status, total) != ("completed", len(each.texts)):
                verdict.complaints.append(f"batch {task_id} of {total} texts is {status}")
        history = query(
            url,
            "SELECT text, count(*) FROM predictions WHERE user_id = :id GROUP BY 1",
            id=each.user_id,
        )
        expected = Counter(each.texts)
        stored = Counter(dict(history))
        verdict.lost += (expected - stored).total()
        verdict.doubled += (stored - expected).total()
    [(verdict.chunks,)] = query(url, "SELECT count(*) FROM batch_chunks")
    [(verdict.executions,)] = query(url, "SELECT count(*) FROM executions")
    if verdict.executions <= verdict.chunks:
        verdict.complaints.append("no fault hit any work: no chunk had to be executed again")
    return verdict


def _judge_batch(url: str, task_id: str, sent: Sent, verdict: Verdict) -> None:
    results = query(
        url,
        "SELECT position, sentiment FROM batch_results WHERE batch_id = :id",
        id=task_id,
    )
    right = {(n, "positive" if "good" in text else "negative") for n, text in enumerate(sent.texts)}
    verdict.lost += len(right - set(results))
    verdict.doubled += len(set(results) - right)
    ends = query(
        url,
        "SELECT action FROM audit_events WHERE subject_id = :id AND action <> 'batch.accepted'",
        id=task_id,
    )
    if ends != [("batch.completed",)]:
        verdict.complaints.append(f"batch {task_id} ended as {[action for (action,) in ends]}")
