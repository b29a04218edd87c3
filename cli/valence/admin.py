"""`valence admin`: manage the superusers of the local installation."""

from pathlib import Path
from typing import Annotated

import typer

from valence.output import echo, fail, fail_without_extra

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _admin() -> None:
    """Manage the superusers of the Valence on this machine."""


@app.command()
def create(
    *,
    username: Annotated[str, typer.Option(prompt=True)],
    email: Annotated[
        str | None, typer.Option(help="Required for a new account.", show_default=False)
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the password; default: a prompt, or standard input.",
            show_default=False,
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote",
            help="Accept an existing account; its password changes only with --password-file.",
        ),
    ] = False,
    home: Annotated[
        Path, typer.Option(envvar="VALENCE_HOME", help="Folder of the running Valence.")
    ] = Path(".valence"),
) -> None:
    """Create a superuser in the Valence that runs on this machine."""
    try:
        # Imported here because the base installation lacks the services.
        from pydantic import SecretStr  # noqa: PLC0415

        from valence.local.data_dir import DataDir  # noqa: PLC0415
        from valence_auth import create_admin  # noqa: PLC0415
    except ImportError as error:
        fail_without_extra("valence admin", error)
    database_url_file = DataDir(home).secrets / "valence_database_url"
    not_running = f"Valence does not run on {home}: start it with `make run` or `valence local`."
    try:
        url = SecretStr(database_url_file.read_text())
    except OSError:
        fail(not_running)
    keep_password = promote and password_file is None
    try:
        message = create_admin.create(
            url,
            username=username,
            email=email,
            password=None if keep_password else create_admin.password_from(password_file),
            promote=promote,
        )
    except create_admin.Unreachable:
        fail(not_running)
    except create_admin.AdminError as error:
        fail(str(error))
    echo(message)
