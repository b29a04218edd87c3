"""What a deadline for each wait for Postgres costs: `python benchmarks/postgres_wait.py`.

Times 5,000 `SELECT 1` on one connection to a local Postgres, with the wait callback of
`valence_common.db` (see docs/adr/0002) and without it, in turns.
"""

import statistics
import tempfile
import time
from pathlib import Path

import psycopg2
from psycopg2.extensions import set_wait_callback
from pydantic import SecretStr

from valence.local.postgres import Postgres
from valence_common.db import make_engine

QUERIES = 5_000
ROUNDS = 5


def microseconds(url: str) -> float:
    """Return the mean time of a query on a new connection."""
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        started = time.perf_counter()
        for _ in range(QUERIES):
            cursor.execute("SELECT 1")
            cursor.fetchone()
        took = time.perf_counter() - started
    connection.close()
    return took / QUERIES * 1e6


def main() -> None:
    """Print both times and their ratio."""
    plain, bounded = [], []
    with (
        tempfile.TemporaryDirectory(prefix="valence-bench-") as folder,
        Postgres(Path(folder)) as postgres,
    ):
        url = postgres.url().replace("+psycopg2", "")
        for _ in range(ROUNDS):
            set_wait_callback(None)
            plain.append(microseconds(url))
            make_engine(SecretStr(postgres.url()))  # sets the callback
            bounded.append(microseconds(url))
    without, within = statistics.median(plain), statistics.median(bounded)
    print(f"without the callback {without:.0f} us, with it {within:.0f} us a query")
    print(f"with / without: {within / without:.2f}")


if __name__ == "__main__":
    main()
