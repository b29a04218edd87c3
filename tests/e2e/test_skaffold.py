"""skaffold: one command deploys, and another redeploys each change."""

import subprocess
import time
from pathlib import Path

import httpx
import pytest

from support.cluster import context, pods, run, until
from support.required import tool

pytestmark = pytest.mark.e2e_full

LINE = "Valence: text sentiment as a service"


def test_run_and_dev(checkout: Path, client: httpx.Client) -> None:
    tool("skaffold")
    # skaffold.yaml names the default cluster of `make cluster`; the tests may use another.
    current = ("--kube-context", context())
    started = time.monotonic()
    run("skaffold", "run", *current, folder=checkout, seconds=900)
    deployed = time.monotonic() - started
    image = pods("inference")[0]["spec"]["containers"][0]["image"]
    assert client.get("/").json()["message"] == LINE
    print(f"\nskaffold run: {deployed:.0f} s, {image}")

    log = (checkout.parent / "log").open("w+")
    command = ["skaffold", "dev", "--cleanup=false", *current]
    with subprocess.Popen(command, cwd=checkout, stdout=log, stderr=log) as dev:
        try:
            ready = lambda: "Watching for changes" in (checkout.parent / "log").read_text()  # noqa: E731
            until(ready, timeout=300, what="skaffold dev watches")
            # It logs this shortly before it starts to watch.
            time.sleep(3)
            route = checkout / "services" / "inference" / "valence_inference/api/service.py"
            route.write_text(route.read_text().replace(LINE, "Changed by skaffold"))

            def changed() -> bool:
                message: str = client.get("/").json().get("message")
                return message == "Changed by skaffold"

            seconds = until(changed, timeout=120, what="the changed line is served")
            print(f"skaffold dev: a changed line is served after {seconds:.0f} s")
        finally:
            dev.terminate()
