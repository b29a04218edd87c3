"""`valence keyring` in this process, and a fake `kubectl` for a cluster with one Secret."""

import base64
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from valence.__main__ import app

# A cluster with one Secret, stored in a file; like the API server, it rejects an old
# resourceVersion.
KUBECTL = """#!{python}
import base64, json, os, pathlib, sys

folder = pathlib.Path({folder!r})
store = folder / "secret.json"
arguments = sys.argv[1:]
with (folder / "argv").open("a") as log:
    log.write(json.dumps(arguments) + "\\n")

def refuse(reason, text):
    sys.exit(f"Error from server ({{reason}}): {{text}}")

assert ["--namespace", "shop"] == arguments[:2], arguments
verb, *rest = arguments[2:]
if (folder / "down").exists():
    sys.exit("The connection to the server 127.0.0.1:1 was refused")
if verb == "get":
    if (folder / "unreadable").exists():
        refuse("Forbidden", "you may not read")
    assert ["secret", "valence-keyring", "--output=json"] == rest, rest
    if not store.exists():
        refuse("NotFound", 'secrets "valence-keyring" not found')
    print(store.read_text())
    if (folder / "meddle").exists():
        secret = json.loads(store.read_text())
        secret["metadata"]["resourceVersion"] += "1"
        store.write_text(json.dumps(secret))
    sys.exit()
assert ["--filename=-"] == rest, rest
sent = json.load(sys.stdin)
assert "Secret" == sent["kind"] and "valence-keyring" == sent["metadata"]["name"]
for value in sent["data"].values():
    base64.b64decode(value, validate=True)
if (folder / "forbidden").exists():
    refuse("Forbidden", "you may not write " + json.dumps(sent["data"]))
if verb == "create":
    if store.exists():
        refuse("AlreadyExists", 'secrets "valence-keyring" already exists')
    sent["metadata"]["resourceVersion"] = "1"
elif verb == "replace":
    version = json.loads(store.read_text())["metadata"]["resourceVersion"]
    if sent["metadata"].get("resourceVersion") != version:
        refuse("Conflict", "the object has been modified; please apply your changes")
    sent["metadata"]["resourceVersion"] = version + "0"
else:
    sys.exit(f"no such verb: {{verb}}")
store.write_text(json.dumps(sent))
print(f"secret/valence-keyring {{verb}}d")
"""
SECRET = ("--secret", "valence-keyring", "--namespace", "shop")


def run(location: Sequence[str], *arguments: str, **environment: str) -> Result:
    """Run a command in this process; `location` are the options before it."""
    command = ["keyring", *location, *arguments]
    return CliRunner().invoke(app, command, env={"COLUMNS": "40", **environment})


def succeed(location: Sequence[str], *arguments: str, **environment: str) -> str:
    """Return the output of a command that succeeds."""
    result = run(location, *arguments, **environment)
    assert 0 == result.exit_code, result.output
    return result.stdout


def fail(location: Sequence[str], *arguments: str, **environment: str) -> str:
    """Return the error of a command that fails: one sentence."""
    result = run(location, *arguments, **environment)
    assert (1, "") == (result.exit_code, result.stdout), result.output
    assert 1 == len(result.stderr.splitlines()), result.stderr
    return result.stderr.strip()


class KeyringFile:
    """The command on a file."""

    def __init__(self, path: Path):
        self.path = path
        self._location = ("--file", str(path))

    def succeed(self, *arguments: str) -> str:
        return succeed(self._location, *arguments)

    def fail(self, *arguments: str) -> str:
        return fail(self._location, *arguments)


class Cluster:
    """The command on the Secret of a fake cluster: its `kubectl` comes first on the PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        program = folder / "bin" / "kubectl"
        program.parent.mkdir()
        program.write_text(KUBECTL.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        self.path = f"{program.parent}:{os.environ['PATH']}"

    def keyring(self) -> bytes:
        secret = json.loads((self.folder / "secret.json").read_text())
        return base64.b64decode(secret["data"]["keyring.json"])

    def succeed(self, *arguments: str) -> str:
        return succeed(SECRET, *arguments, PATH=self.path)

    def fail(self, *arguments: str, options: Sequence[str] = ()) -> str:
        return fail((*SECRET, *options), *arguments, PATH=self.path)
