"""The first superuser: created by a Job's command, or by `valence admin create` on a laptop."""

import asyncio
import io
import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from support.rows import query
from valence.__main__ import app
from valence.local.data_dir import DataDir
from valence_auth import create_admin
from valence_auth.passwords import Passwords

PASSWORD = "correct horse battery staple"
OTHER = "another horse battery staple"


class Command:
    """`valence_auth.create_admin` on one database, run in this process for speed."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        patch: pytest.MonkeyPatch,
        output: pytest.CaptureFixture[str],
    ):
        self.url, self._patch, self._output = database_url, patch, output
        self.file = folder / "password"
        self.file.write_text(PASSWORD)
        patch.setenv("VALENCE_DATABASE_URL", database_url)

    def _run(self, arguments: tuple[str, ...], stdin: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = 0
        try:
            create_admin.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *self._output.readouterr()

    def succeed(self, *arguments: str, stdin: str = "") -> str:
        code, output, error = self._run(arguments, stdin)
        assert (0, "") == (code, error)
        assert PASSWORD not in output
        return output.strip()

    def fail(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        with self._patch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code, output, error = self._run(arguments, stdin)
        assert (78, "") == (code, output), error
        assert 1 == len(error.splitlines()), error
        assert PASSWORD not in error
        return error.strip().removeprefix("valence create_admin: ")

    def create(self, name: str, *more: str) -> str:
        """Create a superuser with the password in the file."""
        return self.succeed(*self.options(name), *more)

    def options(self, name: str) -> list[str]:
        return [
            f"--username={name}",
            f"--email={name}@example.com",
            f"--password-file={self.file}",
        ]

    def state(self, name: str) -> tuple[bool, bool, str]:
        """Return whether the account is active and a superuser, and its password hash."""
        statement = "SELECT is_active, is_superuser, password_hash FROM users WHERE username = :n"
        [row] = query(self.url, statement, n=name)
        return row

    def audit_actions(self, name: str) -> list[tuple[uuid.UUID | None, str]]:
        return query(
            self.url,
            "SELECT actor_id, action FROM audit_events JOIN users ON users.id = subject_id"
            " WHERE username = :n ORDER BY audit_events.id",
            n=name,
        )

    def register(self, name: str) -> None:
        """Insert an account that a user has registered."""
        query(
            self.url,
            "INSERT INTO users (id, username, username_key, email, email_key, password_hash)"
            " VALUES (:id, :n, :n, :e, :e, 'theirs')",
            id=uuid.uuid4(),
            n=name,
            e=f"{name}@example.org",
        )


@pytest.fixture
def command(
    tmp_path: Path,
    own_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    return Command(tmp_path, own_database_url, monkeypatch, capsys)


def _matches(password: str, hashed: str) -> bool:
    return asyncio.run(Passwords(1).check(password, hashed)).matches


def test_a_job_makes_the_first_superuser(command: Command) -> None:
    """The password is the one in the file; the audit record has no actor."""
    program = [sys.executable, "-m", "valence_auth.create_admin"]
    process = subprocess.run(
        [*program, *command.options("admin")], capture_output=True, text=True, check=False
    )
    assert (0, "") == (process.returncode, process.stderr)
    output = process.stdout
    assert PASSWORD not in output
    assert output.startswith("admin was made a superuser. Log in with POST /api/v1/auth/login")
    active, superuser, hashed = command.state("admin")
    assert (True, True) == (active, superuser)
    assert _matches(PASSWORD, hashed)
    assert [(None, "account.registered"), (None, "user.promoted")] == command.audit_actions("admin")


def test_a_job_may_run_again(command: Command) -> None:
    """The second run changes nothing, not even a password that was changed since."""
    command.create("admin")
    query(command.url, "UPDATE users SET password_hash = 'changed'")
    assert "admin is already a superuser; nothing was changed." == command.create("Admin")
    assert (True, True, "changed") == command.state("admin")
    assert [(None, "account.registered"), (None, "user.promoted")] == command.audit_actions("admin")


def test_only_the_first(command: Command) -> None:
    """With `--first` a Job restores no account that was demoted, disabled or erased."""
    command.create("admin", "--first")
    command.create("grace")
    query(command.url, "UPDATE users SET is_superuser = false WHERE username = 'admin'")
    nothing = "There is already a superuser; nothing was changed."
    assert nothing == command.create("admin", "--first") == command.create("ada", "--first")
    assert [(2,)] == query(command.url, "SELECT count(*) FROM users")
    query(command.url, "UPDATE users SET is_active = false WHERE username = 'grace'")
    assert command.create("ada", "--first").startswith("ada was made a superuser.")


def test_a_name_that_somebody_registered_is_not_promoted(command: Command) -> None:
    """A user who registered the name before the Job ran does not become a superuser."""
    command.register("admin")
    sentence = command.fail(*command.options("admin"), "--first")
    assert sentence.startswith("The account admin exists and is no active superuser")
    assert (True, False, "theirs") == command.state("admin")
    assert [] == command.audit_actions("admin")


def test_promote(command: Command) -> None:
    """The account keeps its password or gets the file's, is enabled, and its sessions end."""
    command.register("ada")
    query(command.url, "UPDATE users SET is_active = false")
    query(
        command.url,
        "INSERT INTO sessions (id, user_id, expires_at, scopes)"
        " SELECT :id, id, now() + interval '1 hour', '{}' FROM users",
        id=uuid.uuid4(),
    )
    assert command.succeed("--username=ada", "--promote").startswith("ada is now a superuser.")
    assert (True, True, "theirs") == command.state("ada")
    assert [] == query(command.url, "SELECT 1 FROM sessions WHERE ended_at IS NULL")
    assert [(2,)] == query(command.url, "SELECT count(*) FROM revocations")
    command.succeed(*command.options("ada"), "--promote")
    assert _matches(PASSWORD, command.state("ada")[2])
    [(email,)] = query(command.url, "SELECT email FROM users")
    assert "ada@example.org" == email


def test_a_password_on_standard_input(command: Command) -> None:
    """Without a file, standard input is read; the line end is not part of the password."""
    command.succeed("--username=ada", "--email=ada@example.com", stdin=f"{PASSWORD}\n")
    assert _matches(PASSWORD, command.state("ada")[2])


@pytest.mark.parametrize(
    ("arguments", "password", "sentence"),
    [
        (["--username=a b"], PASSWORD, "The username or e-mail address must be 3 to 64 letters"),
        (["--email=nobody"], PASSWORD, "The username or e-mail address must be an e-mail address."),
        ([], "short", "The password must be 8 to 256 bytes long in UTF-8."),
        ([], "", "The password must be 8 to 256 bytes long in UTF-8."),
        ([], "password1", "The password is too common or too close to the username."),
        (["--password-file=/nowhere"], "", "The password file cannot be read: No such file"),
        (["--email=taken@example.org"], PASSWORD, "Username or email already registered."),
    ],
)
def test_refusals(command: Command, arguments: list[str], password: str, sentence: str) -> None:
    """The error names the rule, and no account is created."""
    command.register("taken")
    command.file.write_text(password)
    refused = command.fail(*command.options("ada"), *arguments)
    assert refused.startswith(sentence)
    assert [(1,)] == query(command.url, "SELECT count(*) FROM users")


def test_what_is_missing_is_said(command: Command, empty_database_url: str) -> None:
    """An e-mail address for a new account, the setting, a reachable database, its schema."""
    assert "There is no account ada; a new one also needs --email." == command.fail(
        "--username=ada"
    )
    options = command.options("ada")
    wrong = command.fail(*options, VALENCE_DATABASE_URL="nonsense")
    assert "VALENCE_DATABASE_URL: must be a postgresql:// URL" == wrong
    away = "postgresql://valence:quite-fine@127.0.0.1:1/valence"
    assert "Postgres does not answer." == command.fail(*options, VALENCE_DATABASE_URL=away)
    no_schema = command.fail(*options, VALENCE_DATABASE_URL=empty_database_url)
    assert 'relation "users" does not exist' == no_schema
    command.file.write_bytes(b"\xff" * 20)
    assert "The password is not UTF-8." == command.fail(*options)


def test_a_terminal_is_asked_twice(command: Command) -> None:
    """The password is not echoed."""
    for second, expected in ((OTHER, 78), (PASSWORD, 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "valence_auth.create_admin"),
                *("--username=ada", "--email=ada@example.com"),
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        for prompt, answer in ((b"Password: ", PASSWORD), (b"Repeat password: ", second)):
            while prompt not in shown:
                shown += os.read(ours, 1024)
            os.write(ours, answer.encode() + b"\n")
        assert expected == process.wait(30)
        shown += os.read(ours, 1024)
        os.close(ours)
        assert PASSWORD.encode() not in shown
    assert _matches(PASSWORD, command.state("ada")[2])


def _local(folder: Path, *arguments: str, stdin: str | None = None) -> Result:
    options = ["admin", "create", "--home", str(folder), "--username", "ada", *arguments]
    return CliRunner().invoke(app, options, input=stdin)


@pytest.fixture
def data_dir(tmp_path: Path, own_database_url: str) -> DataDir:
    """The data folder of a running Valence."""
    data_dir = DataDir(tmp_path / "home")
    data_dir.path.mkdir()
    data_dir.write_secrets({"valence_database_url": own_database_url})
    return data_dir


def test_a_local_superuser(data_dir: DataDir, own_database_url: str, tmp_path: Path) -> None:
    """The data folder names the database; a file, standard input and a second run work."""
    created = _local(data_dir.path, "--email", "ada@example.com", stdin=PASSWORD)
    assert (0, True) == (created.exit_code, created.stdout.startswith("ada was made a superuser."))
    assert PASSWORD not in created.output
    again = _local(data_dir.path, "--email", "ada@example.com", stdin=PASSWORD)
    assert (0, "ada is already a superuser; nothing was changed.") == (
        again.exit_code,
        again.stdout.strip(),
    )
    file = tmp_path / "password"
    file.write_text(f"{OTHER}\n")
    promoted = _local(data_dir.path, "--promote", "--password-file", str(file))
    assert 0 == promoted.exit_code
    [(hashed,)] = query(own_database_url, "SELECT password_hash FROM users")
    assert _matches(OTHER, hashed)


def test_local_refusals(data_dir: DataDir, tmp_path: Path) -> None:
    """No Valence, a stopped one, or a violated rule: one sentence and exit code 1."""
    nowhere = tmp_path / "nowhere"
    failed = _local(nowhere, "--email", "ada@example.com", stdin=PASSWORD)
    sentence = f"Valence does not run on {nowhere}: start it with `make run` or `valence local`."
    assert (1, sentence) == (failed.exit_code, failed.stderr.strip())
    assert not nowhere.exists()
    failed = _local(data_dir.path, stdin=PASSWORD)
    assert (1, True) == (failed.exit_code, "also needs --email" in failed.stderr)
    away = "postgresql+psycopg2://valence:quite-fine@127.0.0.1:1/valence"
    data_dir.write_secrets({"valence_database_url": away})
    failed = _local(data_dir.path, "--email", "ada@example.com", stdin=PASSWORD)
    assert (1, True) == (failed.exit_code, failed.stderr.startswith("Valence does not run on"))
