"""The chart's backup script, run as its pod runs it: with Postgres's own programs and no root."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from support.chart import CHART
from support.rows import query
from support.waiting import until
from valence.local.binaries import find_postgres
from valence.local.unprivileged import find_runner

SCRIPT = CHART / "files" / "backup.sh"

Done = subprocess.CompletedProcess[str]


class Backups:
    """A folder of backups of one database."""

    def __init__(self, folder: Path, url: str):
        self.folder = folder
        # A socket's path must be short, and pytest's folders are not.
        self._aside = Path(tempfile.mkdtemp(prefix="valence-", dir="/tmp"))
        postgres, _ = find_postgres()
        self._runner, _ = find_runner([str(postgres), "--version"])
        self._url_file = self._aside / "url"
        self._url_file.write_text(url)
        self._environment = {
            "PATH": f"{postgres.parent}:{os.environ['PATH']}",
            "BACKUP_DIR": str(folder),
            "BACKUP_WORK": str(self._aside),
            "BACKUP_URL_FILE": str(self._url_file),
        }
        folder.mkdir(exist_ok=True)
        if self._runner.owner is not None:
            for path in (folder, self._aside, self._url_file):
                os.chown(path, *self._runner.owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._aside)

    def point_at(self, url: str) -> None:
        """Another database."""
        self._url_file.write_text(url)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._runner.prefix, str(SCRIPT), *arguments],
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> Done:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=180)
        return Done(arguments, process.returncode, out, err)

    def make(self, **environment: str) -> str:
        """A backup that must succeed; returns its name."""
        done = self.run("backup", **environment)
        assert (0, "") == (done.returncode, done.stderr), done
        return self.names()[-1]

    def names(self) -> list[str]:
        """What is called a backup, oldest first."""
        return sorted(path.stem for path in self.folder.glob("*.dump") if path.stem[0] != ".")

    def partial(self) -> Path:
        return self.folder / ".partial.dump"

    def wait_dumping(self) -> None:
        """Until some of a dump is written."""
        partial = self.partial()
        until(lambda: partial.exists() and partial.stat().st_size, timeout=60, interval=0.005)

    def idle(self) -> bool:
        """No server and no file of a run is left."""
        return ["url"] == [path.name for path in self._aside.iterdir()]


def refused(done: Done, sentence: str, code: int = 1) -> None:
    """It failed, and said why in one sentence."""
    assert code == done.returncode, done
    assert "" == done.stdout
    assert 1 == len(done.stderr.splitlines()), done.stderr
    assert sentence in done.stderr


def kill(process: "subprocess.Popen[str]") -> None:
    """SIGKILL all of it, as when a node dies."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)


def fill(url: str, rows: int) -> None:
    """History that does not compress well: about 2 KB a row."""
    user = "00000000-0000-7000-8000-000000000001"
    query(
        url,
        "INSERT INTO users (id, username, username_key, email, email_key)"
        " VALUES (:id, 'a', 'a', 'a@example.com', 'a@example.com') ON CONFLICT DO NOTHING",
        id=user,
    )
    query(
        url,
        "INSERT INTO predictions (id, user_id, text, sentiment, confidence, low_confidence, model)"
        " SELECT gen_random_uuid(), :id, (SELECT string_agg(md5(random()::text || n || part), '')"
        " FROM generate_series(1, 60) AS part), 'positive', 1, false, 'm'"
        " FROM generate_series(1, :rows) AS n",
        id=user,
        rows=rows,
    )
