"""`python -m valence_auth.create_admin --username --email`: makes the first superuser.

For who runs the installation: it needs the database and nothing else. A Job may run it again and
again. An account that exists is left alone unless `--promote` says that it is meant: anybody may
have registered the name.
"""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from valence_auth import accounts, admin
from valence_auth.passwords import Passwords, weakness
from valence_common.db import Database
from valence_common.models import User
from valence_common.problems import DomainError, Unavailable
from valence_common.settings import DatabaseSettings, SettingsError, load
from valence_common.web.process import exit_with_error

QUERY_SECONDS: Final = 5.0
NEXT: Final = "Log in with POST /api/v1/auth/login: the token has the scope `admin`."


class AdminError(Exception):
    """The superuser was not made: one sentence, without the password."""


class Unreachable(AdminError):
    """Nobody is there to make one with."""


def create(
    database_url: SecretStr,
    *,
    username: str,
    email: str | None,
    password: Callable[[], str] | None,
    promote: bool = False,
    first: bool = False,
) -> str:
    """Make a superuser; returns what was done as sentences, or raises `AdminError`.

    `password` is asked only when it is needed. `promote` also takes an account that exists, whose
    password stays unless there is one. `first` does nothing where there is a superuser already.
    """
    try:
        username = accounts.display_username(username)
        email = None if email is None else accounts.display_email(email)
    except ValueError as error:
        raise AdminError(f"The name or address {error}.") from None
    database = Database(database_url, pool_size=1, timeout=QUERY_SECONDS, pooled=False)
    try:
        with database.transaction() as session:
            found = accounts.find(session, username)
            done = _nothing_to_do(session, found, promote=promote, first=first)
        if done is not None:
            return done
        if found is None and (email is None or password is None):
            raise AdminError(f"There is no account {username}: a new one needs --email, too.")
        hashed = None if password is None else _hash(password(), username)
        with database.transaction() as session:
            user, made = admin.appoint(
                session, username=username, email=email, password_hash=hashed
            )
            if found is None and not made:
                raise AdminError(f"An account {username} was registered a moment ago: try again.")
    except Unavailable:
        raise Unreachable("Postgres does not answer.") from None
    except DomainError as error:
        raise AdminError(f"{error.message}.") from None
    except DBAPIError as error:
        # The driver's first line names the rule that Postgres holds us to, never a row.
        raise AdminError(str(error.orig).partition("\n")[0]) from None
    finally:
        database.close()
    return f"{user.username} {'was made' if made else 'is now'} a superuser. {NEXT}"


def password_from(file: Path | None) -> Callable[[], str]:
    """How to read the password: from a file, a terminal that is asked twice, or standard input."""

    def read() -> str:
        if file is None and sys.stdin.isatty():
            password = getpass.getpass("Password: ")
            if getpass.getpass("Once more: ") != password:
                raise AdminError("The two passwords differ.")
            return password
        try:
            content = sys.stdin.buffer.read() if file is None else file.read_bytes()
            # Editors and `echo` end a line that is no part of the password.
            return content.decode().removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise AdminError(f"The password file cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise AdminError("The password is not UTF-8.") from None

    return read


def _nothing_to_do(
    session: Session, found: User | None, *, promote: bool, first: bool
) -> str | None:
    """Why all is as it should be already; raises `AdminError` for another's account."""
    if first and admin.superusers(session):
        return "There is a superuser already: nothing was changed."
    if found is None or promote:
        return None
    if admin.administers(found):
        return f"{found.username} is a superuser already: nothing was changed."
    raise AdminError(
        f"An account {found.username} exists and is no active superuser: give another name,"
        " or --promote if it is yours."
    )


def _hash(password: str, username: str) -> str:
    if reason := weakness(password, username):
        raise AdminError(f"The password {reason}.")
    return asyncio.run(Passwords(1).hash(password))


def main(arguments: Sequence[str]) -> None:
    """Run the command; what goes wrong is one sentence on stderr and exit code 78."""
    parser = argparse.ArgumentParser("python -m valence_auth.create_admin", description=__doc__)
    parser.add_argument("--username", required=True)
    parser.add_argument("--email", help="needed for a new account")
    parser.add_argument("--password-file", type=Path, help="else a terminal or standard input")
    parser.add_argument("--promote", action="store_true", help="also an account that exists")
    parser.add_argument("--first", action="store_true", help="only if there is no superuser yet")
    given = parser.parse_args(arguments)
    # A promoted account keeps its password, unless a file holds another.
    keeps = given.promote and given.password_file is None
    try:
        done = create(
            load(DatabaseSettings, alone=False).database_url,
            username=given.username,
            email=given.email,
            password=None if keeps else password_from(given.password_file),
            promote=given.promote,
            first=given.first,
        )
    except (SettingsError, AdminError) as error:
        exit_with_error("create_admin", error)
    sys.stdout.write(f"{done}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
