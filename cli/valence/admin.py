"""`valence admin`: what only who runs an installation may do, here for the local one."""

from pathlib import Path
from typing import Annotated

import typer

from valence.output import fail, fail_without_extra, say

app = typer.Typer(no_args_is_help=True, help="Superusers of the Valence on this machine.")


@app.callback()
def _admin() -> None:
    """Superusers of the Valence on this machine."""


@app.command()
def create(
    *,
    username: Annotated[str, typer.Option(prompt=True)],
    email: Annotated[
        str | None, typer.Option(help="Needed for a new account.", show_default=False)
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="Else a terminal is asked, or standard input.", show_default=False),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            "--promote",
            help="Also an account that exists; it keeps its password, unless a file has another.",
        ),
    ] = False,
    home: Annotated[
        Path, typer.Option(envvar="VALENCE_HOME", help="The folder of the running Valence.")
    ] = Path(".valence"),
) -> None:
    """Make a superuser in the Valence that runs on this machine."""
    try:
        # The typed client is installed without the services.
        from pydantic import SecretStr  # noqa: PLC0415

        from valence.local.data_dir import Home  # noqa: PLC0415
        from valence_auth import create_admin  # noqa: PLC0415
    except ImportError as error:
        fail_without_extra("valence admin", error)
    address = Home(home).secrets / "valence_database_url"
    try:
        url = SecretStr(address.read_text())
    except OSError:
        fail(f"Valence does not run on {home}: start it with `make run` or `valence local`.")
    keeps = promote and password_file is None
    try:
        done = create_admin.create(
            url,
            username=username,
            email=email,
            password=None if keeps else create_admin.password_from(password_file),
            promote=promote,
        )
    except create_admin.Unreachable:
        fail(f"Valence does not run on {home}: start it with `make run` or `valence local`.")
    except create_admin.AdminError as error:
        fail(str(error))
    say(done)
