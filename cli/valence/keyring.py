"""`valence keys`: makes and rotates the keyring that signs access tokens."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

import typer

from valence.keyring_stores import FileStore, SecretStore, Store, StoreError
from valence.output import fail, fail_without_extra, say

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Make and rotate the keys that sign access tokens.")

File = Annotated[Path | None, typer.Argument(help="The keyring file.", show_default=False)]
SecretName = Annotated[
    str | None, typer.Option("--secret", help="A Kubernetes Secret instead of a file.")
]
Namespace = Annotated[
    str | None, typer.Option(help="The Secret's namespace; else the one kubectl is set to.")
]
Entry = Annotated[str, typer.Option("--key", help="The Secret's entry that holds the keyring.")]
DEFAULT_ENTRY = "keyring.json"


@app.command()
def new(
    file: File = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    key: Entry = DEFAULT_ENTRY,
) -> None:
    """Make a keyring with one key; what is there already stays as it is."""
    store = _store(file, secret, namespace, key)
    _trying(store, lambda: store.create(_keyring().generate()))
    say(f"{store}: made, with one key that signs.")


@app.command()
def show(
    file: File = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    key: Entry = DEFAULT_ENTRY,
) -> None:
    """List the keys by name and state; never the keys themselves."""
    _show(_store(file, secret, namespace, key))


@app.command()
def add(
    file: File = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    key: Entry = DEFAULT_ENTRY,
) -> None:
    """First step of a rotation: add a key that verifies and does not sign yet."""
    store = _store(file, secret, namespace, key)
    _change(store, _keyring().add)
    say(f"Activate it once every replica has read it, in {store.settles_in:.0f} s.")


@app.command()
def activate(
    file: File = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    key: Entry = DEFAULT_ENTRY,
    kid: Annotated[
        str | None, typer.Option(help="Make this key sign, also one that did before (a rollback).")
    ] = None,
) -> None:
    """Second step: the added key signs; what the old one signed stays good until it expires."""
    store = _store(file, secret, namespace, key)
    _change(store, lambda content: _keyring().activate(content, datetime.now(UTC), kid))


@app.command()
def rotate(
    file: File = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    key: Entry = DEFAULT_ENTRY,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds for all replicas to read a change; 2 for a file, 120 for a Secret.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Both steps with the pause between; run it again if it was interrupted."""
    store = _store(file, secret, namespace, key)
    seconds = store.settles_in if wait is None else wait
    if not any(described.waiting for described in _describe(store)):
        _change(store, _keyring().add)
    say(f"The new key signs in {seconds:.0f} s, when every replica knows it…")
    time.sleep(seconds)
    _change(store, lambda content: _keyring().activate(content, datetime.now(UTC)))
    say("Drop the old key after its end: valence keys drop, with the same options.")


@app.command()
def drop(
    file: File = None,
    secret: SecretName = None,
    namespace: Namespace = None,
    key: Entry = DEFAULT_ENTRY,
    kid: Annotated[
        str | None, typer.Option(help="Drop this key now, even if its end is still to come.")
    ] = None,
) -> None:
    """Last step: remove the keys whose end has passed."""
    store = _store(file, secret, namespace, key)
    _change(store, lambda content: _keyring().drop(content, datetime.now(UTC), kid))
    if kid is not None:
        say("An access token of that key is refused from now on; refresh tokens bring new ones.")


def _store(file: Path | None, secret: str | None, namespace: str | None, key: str) -> Store:
    if (file is None) == (secret is None):
        fail("Name either the keyring's file or its Secret (--secret).")
    return FileStore(file) if file else SecretStore(str(secret), namespace=namespace, key=key)


def _keyring() -> ModuleType:
    try:
        # The typed client is installed without the floor.
        from valence_common import keyring  # noqa: PLC0415
    except ImportError as error:
        fail_without_extra("valence keys", error)
    return keyring


def _change(store: Store, step: Callable[[bytes], bytes]) -> None:
    """Take the keyring one step further, and show it."""
    _trying(store, lambda: store.replace(step(store.read())))
    _show(store)


def _show(store: Store) -> None:
    for key in _describe(store):
        if key.active:
            state = "signs"
        elif key.waiting:
            state = "waits to be activated"
        elif key.verify_until is None:
            state = "verifies"
        else:
            state = f"verifies until {key.verify_until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        say(f"{key.kid}  {state}")


def _describe(store: Store) -> list[Any]:
    described: list[Any] = _trying(store, lambda: _keyring().list_keys(store.read()))
    return described


def _trying(store: Store, work: Callable[[], T]) -> T:
    broken = _keyring().KeyringError
    try:
        return work()
    except StoreError as error:
        fail(f"{error}.")
    except broken as error:
        fail(f"{store}: {error}.")
