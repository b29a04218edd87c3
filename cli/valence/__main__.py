"""The `valence` command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from valence import admin, keyring
from valence.output import fail, fail_without_extra

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(keyring.app, name="keyring")
app.add_typer(admin.app, name="admin")


@app.callback()
def _valence() -> None:
    """Run and administer Valence, which serves text sentiment."""


@app.command()
def local(
    *,
    home: Annotated[
        Path, typer.Option(envvar="VALENCE_HOME", help="Folder for data, secrets and logs.")
    ] = Path(".valence"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", min=0, max=65535, help="Port; 0 selects a free one.")
    ] = 8000,
) -> None:
    """Run all of Valence on this machine until Ctrl-C."""
    try:
        # Imported here because the base installation lacks what the launcher needs.
        from valence.local.data_dir import DataDir  # noqa: PLC0415
        from valence.local.errors import LocalError  # noqa: PLC0415
        from valence.local.launcher import Launcher  # noqa: PLC0415
    except ImportError as error:
        fail_without_extra("valence local", error)
    try:
        Launcher(DataDir(home), host=host, port=port, console=Console()).run()
    except LocalError as error:
        fail(str(error))


def main() -> None:
    """Run the command; entry point of the console script."""
    app(prog_name="valence")


if __name__ == "__main__":
    main()
