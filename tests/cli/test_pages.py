"""The commands and programs of README and docs do what the pages say, on what `make run` starts."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.local import USER, Local
from support.required import tool

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A launcher for all pages, with a user whose token and key the pages' variables hold."""
    with Local(tmp_path_factory.mktemp("pages") / "home") as local:
        local.login()
        yield local


@pytest.fixture(scope="module")
def variables(local: Local) -> dict[str, str]:
    """The variables that the pages use without saying where they come from."""
    login = local.client.post("/api/v1/auth/login", data=USER).json()
    key = local.client.post("/api/v1/api-keys", json={"name": "pages"}).json()["key"]
    return {
        "URL": local.url,
        "API": f"{local.url}/api/v1",
        "TOKEN": login["access_token"],
        "REFRESH_TOKEN": login["refresh_token"],
        "KEY": key,
    }


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell(script: str, local: Local, folder: Path, variables: dict[str, str]) -> str:
    """What bash prints for a script of a page, in a folder of its own."""
    with bash(script, local, folder, variables) as process:
        output, complaints = process.communicate(timeout=120)
    assert 0 == process.returncode, output + complaints
    return output


def bash(
    script: str, local: Local, folder: Path, variables: dict[str, str]
) -> "subprocess.Popen[str]":
    """A script of a page, with the launcher's address in place of the page's."""
    tool("curl")
    host = local.url.removeprefix("http://")
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script.replace("localhost:8000", host)],
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def same(text: str) -> Any:
    """JSON without what differs from run to run."""
    return json.loads(text) | {"id": "", "processing_time": 0}


def test_readme(local: Local, tmp_path: Path) -> None:
    """Pasted one after another, its commands print the answers that it shows."""
    start, first, batch, *_ = blocks("README.md", "sh")
    assert "make run\n" == start
    output = shell(f"{first}\necho\n{batch}", local, tmp_path, {})
    answer = output[output.index('{"id"', 1) :].splitlines()[0]
    [shown] = blocks("README.md", "json")
    assert same(shown) == same(answer)
    [table] = blocks("README.md", "text")
    assert output.replace("\r\n", "\n").endswith(table)


def test_keys_and_tokens(local: Local, tmp_path: Path, variables: dict[str, str]) -> None:
    """Tokens are refreshed, a key is made, and a key scores."""
    refresh, create, use = blocks("docs/api-keys.md", "sh")
    assert {"access_token", "refresh_token"} < json.loads(
        shell(refresh, local, tmp_path, variables)
    ).keys()
    created = json.loads(shell(create, local, tmp_path, variables))
    assert ["analyze", "batch"] == created["scopes"]
    answer = shell(use, local, tmp_path, variables | {"KEY": created["key"]})
    assert "positive" == json.loads(answer)["sentiment"]


def test_batches_are_submitted(local: Local, tmp_path: Path, variables: dict[str, str]) -> None:
    """As JSON, CSV and a form."""
    (tmp_path / "reviews.csv").write_text("id,review\n1,good\n")
    (tmp_path / "reviews.ndjson").write_text('{"review": "good"}\n{"review": "bad"}\n')
    script, _ = blocks("docs/batches.md", "sh")
    output = shell(script, local, tmp_path, variables)
    assert ["2", "1", "2"] == re.findall(r'"total":(\d+)', output)
    assert 3 == output.count("202 Accepted")


def test_results_are_resumed(local: Local, tmp_path: Path, variables: dict[str, str]) -> None:
    """A download that breaks off in the middle of a line, or before the first, becomes whole."""
    tool("jq")
    _, script = blocks("docs/batches.md", "sh")
    task_id = local.submit([f"text {n}" for n in range(50)])
    while local.completed(task_id) is None:
        time.sleep(0.1)
    path = f"/api/v1/sentiment/task/{task_id}/results?format=ndjson"
    whole = local.client.get(path).text
    for arrived in (1000, 0, whole.index("\n") + 1):
        folder = tmp_path / str(arrived)
        folder.mkdir()
        breaks_off = f"""
            curl() {{
              [ ! -e broken ] || {{ command curl "$@"; return; }}
              command curl "$@" && head -c {arrived} all.ndjson > broken && cp broken all.ndjson
              return 18
            }}
        """
        shell(breaks_off + script, local, folder, variables | {"ID": task_id})
        assert whole == (folder / "all.ndjson").read_text()


def test_progress_is_followed(local: Local, tmp_path: Path, variables: dict[str, str]) -> None:
    """By the curl, Python and JavaScript of the page."""
    task_id = local.submit([f"text {n}" for n in range(50)])
    follow, handshake = blocks("docs/live.md", "sh")
    output = shell(follow, local, tmp_path, variables | {"TASK": task_id})
    assert "event: end" in output
    code, _ = blocks("docs/live.md", "python")
    names: dict[str, Any] = {}
    exec(code, names)  # our own page
    local.client.headers["Authorization"] = f"Bearer {variables['TOKEN']}"
    seen = list(names["follow"](local.client, f"/api/v1/sentiment/task/{task_id}/events"))
    assert ("end", "completed") == (seen[-1][0], seen[-1][1]["status"])
    with bash(f"exec stdbuf -oL {handshake}", local, tmp_path, variables) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("HTTP/1.1 101")
        process.kill()  # it would wait for messages


def test_typing_in_python(
    local: Local, capsys: pytest.CaptureFixture[str], variables: dict[str, str]
) -> None:
    """The WebSocket example prints what it says."""
    _, code = blocks("docs/live.md", "python")
    url = local.url.replace("http://", "ws://")
    exec(code, {"url": url, "key": variables["KEY"]})  # our own page
    lines = capsys.readouterr().out.splitlines()
    assert 3 == len(lines)
    assert all(line.startswith("{'negative': ") for line in lines)


def test_browsers(local: Local, tmp_path: Path, variables: dict[str, str]) -> None:
    """The page's JavaScript, in Node with what a browser would have around it."""
    follow, typing = blocks("docs/live.md", "js")
    task_id = local.submit(["good", "bad"])
    around = f"""
        const answers = globalThis.fetch, origin = {json.dumps(local.url)};
        globalThis.fetch = (path, options) => answers(origin + path, options);
        const task = {json.dumps(task_id)}, token = {json.dumps(variables["TOKEN"])};
        const host = {json.dumps(local.url.removeprefix("http://"))}, field = {{value: "good"}};
        const show = (...what) => console.log(JSON.stringify(what.at(-1)));
        let last, turn = 0;
    """
    script = around + follow
    if int(_run(node := tool("node"), "console.log(process.versions.node.split('.')[0])")) >= 22:
        script += typing.replace("wss://", "ws://")  # Node's first version with a WebSocket
        script += "socket.onopen = field.oninput; setTimeout(() => socket.close(), 1000);"
    shown = [json.loads(line) for line in _run(node, script).splitlines()]
    assert ["completed"] == [data["status"] for data in shown if "task_id" in data]
    assert all(data["sentiment"] == "positive" for data in shown if "id" in data)


def _run(node: str, script: str) -> str:
    done = subprocess.run(
        [node, "--input-type=module", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout
