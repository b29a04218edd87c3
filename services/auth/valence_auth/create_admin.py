"""`python -m valence_auth.create_admin --username --email` creates the first superuser.

A command for operators, which needs only the database. A Job may repeat it. An existing account is
changed only with `--promote`, since anyone may have registered the name.
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
from valence_auth.passwords import Passwords, password_error
from valence_common.db import Database
from valence_common.models import User
from valence_common.problems import DomainError, Unavailable
from valence_common.settings import DatabaseSettings, SettingsError, load
from valence_common.web.process import exit_with_error

QUERY_SECONDS: Final = 5.0
NEXT: Final = "Log in with POST /api/v1/auth/login: the token has the scope `admin`."


class AdminError(Exception):
    """The superuser was not created; the message is one sentence, without the password."""


class Unreachable(AdminError):
    """Postgres does not answer."""


def create(
    database_url: SecretStr,
    *,
    username: str,
    email: str | None,
    password: Callable[[], str] | None,
    promote: bool = False,
    first: bool = False,
) -> str:
    """Create a superuser; return what was done as sentences, or raise `AdminError`.

    `password` is called only if it is needed. With `promote`, an existing account becomes a
    superuser, and keeps its password unless one is given. With `first`, do nothing if there is a
    superuser already.
    """
    try:
        username = accounts.display_username(username)
        email = None if email is None else accounts.display_email(email)
    except ValueError as error:
        raise AdminError(f"The username or e-mail address {error}.") from None
    database = Database(database_url, pool_size=1, timeout=QUERY_SECONDS, pooled=False)
    try:
        with database.transaction() as session:
            existing = accounts.find(session, username)
            reason = _nothing_to_do(session, existing, promote=promote, first=first)
        if reason is not None:
            return reason
        if existing is None and (email is None or password is None):
            raise AdminError(f"There is no account {username}; a new one also needs --email.")
        hashed = None if password is None else _hash(password(), username)
        with database.transaction() as session:
            user, created = admin.promote_or_create(
                session, username=username, email=email, password_hash=hashed
            )
            if existing is None and not created:
                raise AdminError(f"An account {username} was just registered; try again.")
    except Unavailable:
        raise Unreachable("Postgres does not answer.") from None
    except DomainError as error:
        raise AdminError(f"{error.message}.") from None
    except DBAPIError as error:
        # The first line names the violated rule, never a row's content.
        raise AdminError(str(error.orig).partition("\n")[0]) from None
    finally:
        database.close()
    return f"{user.username} {'was made' if created else 'is now'} a superuser. {NEXT}"


def password_from(file: Path | None) -> Callable[[], str]:
    """Return a reader of the password: from a file, a terminal (twice), or standard input."""

    def read() -> str:
        if file is None and sys.stdin.isatty():
            password = getpass.getpass("Password: ")
            if getpass.getpass("Repeat password: ") != password:
                raise AdminError("The two passwords differ.")
            return password
        try:
            content = sys.stdin.buffer.read() if file is None else file.read_bytes()
            # Editors and `echo` append a newline that is not part of the password.
            return content.decode().removesuffix("\n").removesuffix("\r")
        except OSError as error:
            raise AdminError(f"The password file cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise AdminError("The password is not UTF-8.") from None

    return read


def _nothing_to_do(
    session: Session, existing: User | None, *, promote: bool, first: bool
) -> str | None:
    """Return why nothing needs to change, or None; raise `AdminError` for another's account."""
    if first and admin.count_superusers(session):
        return "There is already a superuser; nothing was changed."
    if existing is None or promote:
        return None
    if admin.can_administer(existing):
        return f"{existing.username} is already a superuser; nothing was changed."
    raise AdminError(
        f"The account {existing.username} exists and is no active superuser; choose another"
        " name, or use --promote if the account is yours."
    )


def _hash(password: str, username: str) -> str:
    if reason := password_error(password, username):
        raise AdminError(f"The password {reason}.")
    return asyncio.run(Passwords(1).hash(password))


def main(arguments: Sequence[str]) -> None:
    """Run the command; an error is one sentence on stderr and exit code 78."""
    parser = argparse.ArgumentParser("python -m valence_auth.create_admin", description=__doc__)
    parser.add_argument("--username", required=True)
    parser.add_argument("--email", help="required for a new account")
    parser.add_argument("--password-file", type=Path, help="default: terminal or standard input")
    parser.add_argument("--promote", action="store_true", help="promote an existing account")
    parser.add_argument("--first", action="store_true", help="do nothing if there is a superuser")
    options = parser.parse_args(arguments)
    # A promoted account keeps its password, unless a file has another.
    keeps_password = options.promote and options.password_file is None
    try:
        message = create(
            load(DatabaseSettings, alone=False).database_url,
            username=options.username,
            email=options.email,
            password=None if keeps_password else password_from(options.password_file),
            promote=options.promote,
            first=options.first,
        )
    except (SettingsError, AdminError) as error:
        exit_with_error("create_admin", error)
    sys.stdout.write(f"{message}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
