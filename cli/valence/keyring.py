"""`valence keyring`: create the keyring that signs access tokens, and rotate its keys."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from valence.keyring_stores import FileStore, SecretStore, Store, StoreError
from valence.output import echo, fail
from valence_common import keyring

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True)
class _Location:
    """The options that name the keyring, which all commands share."""

    file: Path | None
    secret: str | None
    namespace: str | None
    key: str

    def store(self) -> Store:
        if self.file is not None and self.secret is None:
            return FileStore(self.file)
        if self.secret is not None and self.file is None:
            return SecretStore(self.secret, namespace=self.namespace, key=self.key)
        return fail("Name the keyring with either --file or --secret, before the command.")


@app.callback()
def _locate(
    context: typer.Context,
    *,
    file: Annotated[Path | None, typer.Option(help="The keyring file.", show_default=False)] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="A Kubernetes Secret instead of a file.", show_default=False),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(help="The Secret's namespace; default: that of kubectl.", show_default=False),
    ] = None,
    key: Annotated[
        str, typer.Option(help="The Secret's entry that holds the keyring.")
    ] = "keyring.json",
) -> None:
    """Create and rotate the keys that sign access tokens."""
    # Not opened here, so that `--help` of a command works without these options.
    context.obj = _Location(file, secret, namespace, key)


@app.command()
def new(context: typer.Context) -> None:
    """Create a keyring with one key; never overwrite an existing one."""
    store = _store(context)
    _report_errors(store, lambda: store.create(keyring.generate()))
    echo(f"{store}: created, with one signing key.")


@app.command()
def show(context: typer.Context) -> None:
    """List the keys by name and state, never the keys themselves."""
    _show(_store(context))


@app.command()
def add(context: typer.Context) -> None:
    """First step of a rotation: add a key that verifies but does not sign yet."""
    store = _store(context)
    _change(store, keyring.add)
    echo(f"Activate it once every replica has read it, in {store.propagation_seconds:.0f} s.")


@app.command()
def activate(
    context: typer.Context,
    kid: Annotated[
        str | None,
        typer.Option(help="The key that shall sign; a retired one rolls the rotation back."),
    ] = None,
) -> None:
    """Second step: sign with the added key; the old key verifies until its tokens have expired."""
    _change(_store(context), lambda content: keyring.activate(content, datetime.now(UTC), kid))


@app.command()
def rotate(
    context: typer.Context,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds until all replicas have read a change; 2 for a file, 120 for a Secret.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Add a key, wait, and activate it; run the command again if it was interrupted."""
    store = _store(context)
    seconds = store.propagation_seconds if wait is None else wait
    if not any(key.waiting for key in _keys(store)):
        _change(store, keyring.add)
    echo(f"The new key signs in {seconds:.0f} s, when every replica has read it…")
    time.sleep(seconds)
    _change(store, lambda content: keyring.activate(content, datetime.now(UTC)))
    echo("Drop the old key after it has expired: valence keyring drop, with the same options.")


@app.command()
def drop(
    context: typer.Context,
    kid: Annotated[
        str | None, typer.Option(help="Drop this key now, even if it has not expired.")
    ] = None,
) -> None:
    """Last step: remove the keys that have expired."""
    _change(_store(context), lambda content: keyring.drop(content, datetime.now(UTC), kid))
    if kid is not None:
        echo("Access tokens of that key are rejected from now on; clients refresh them.")


def _store(context: typer.Context) -> Store:
    location: _Location = context.obj
    return location.store()


def _change(store: Store, step: Callable[[bytes], bytes]) -> None:
    """Replace the keyring by what `step` makes of it, and show it."""
    _report_errors(store, lambda: store.replace(step(store.read())))
    _show(store)


def _show(store: Store) -> None:
    for key in _keys(store):
        if key.active:
            state = "signs"
        elif key.waiting:
            state = "waits to be activated"
        elif key.verify_until is None:
            state = "verifies"
        else:
            state = f"verifies until {key.verify_until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        echo(f"{key.kid}  {state}")


def _keys(store: Store) -> list[keyring.KeyInfo]:
    return _report_errors(store, lambda: keyring.list_keys(store.read()))


def _report_errors(store: Store, function: Callable[[], T]) -> T:
    try:
        return function()
    except StoreError as error:
        fail(f"{error}.")
    except keyring.KeyringError as error:
        fail(f"{store}: {error}.")
