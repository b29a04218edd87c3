"""Ingress and Gateway: routes, limits and timeouts; and the notes that say how to reach them."""

import json
import subprocess

from support.chart import (
    CHART,
    EXTERNAL,
    NOTHING,
    Object,
    changed,
    find_object,
    helm_template,
    objects,
    rendered,
)
from support.required import tool
from valence_auth.app import PREFIXES


def test_routes_send_to_auth_what_auth_serves() -> None:
    """Ingress and HTTPRoute have the same routes, and auth's are `valence_auth.app.PREFIXES`."""
    values = {**EXTERNAL, "gateway": {"enabled": True, "parentRefs": [{"name": "edge"}]}}
    found = objects(values)
    ingress = {
        path["path"]: path["backend"]["service"]["name"]
        for each in found
        if each["kind"] == "Ingress"
        for rule in each["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    gateway = {
        rule["matches"][0]["path"]["value"]: rule["backendRefs"][0]["name"]
        for rule in find_object(found, "HTTPRoute", "valence")["spec"]["rules"]
    }
    assert gateway == ingress
    to_auth = {path for path, service in ingress.items() if service == "valence-auth"}
    assert to_auth - {"/api/v1/auth/login", "/api/v1/users/me/export"} == set(PREFIXES)
    assert ingress["/"] == "valence-inference"


def test_a_route_may_belong_to_one_listener() -> None:
    """Of a Gateway in another namespace; an unknown field of a parent is rejected."""
    parent = {"name": "edge", "namespace": "gateways", "sectionName": "https", "port": 443}
    values = {**EXTERNAL, "gateway": {"enabled": True, "parentRefs": [parent]}}
    assert [parent] == find_object(objects(values), "HTTPRoute", "valence")["spec"]["parentRefs"]
    wrong = {
        **EXTERNAL,
        "gateway": {"enabled": True, "parentRefs": [{"name": "a", "section": "b"}]},
    }
    assert "section" in helm_template(wrong).stderr


def notes(values: Object) -> str:
    """Return the notes that helm prints after installing."""
    command = [tool("helm"), "install", "valence", str(CHART), "--dry-run=client", "--values", "-"]
    result = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, check=True
    )
    return result.stdout.partition("NOTES:\n")[2]


def test_notes_tell_how_to_reach_it() -> None:
    """Through the Ingress, the Gateway, or a forwarded port with an allowed host name."""
    assert "https://sentiment.example.com/api/v1/auth/login" in notes(EXTERNAL)
    gateway = {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["a.example.com"]}
    routed = notes({**NOTHING, "gateway": gateway})
    assert "https://a.example.com/api/v1/auth/login" in routed
    assert "port-forward" not in routed
    plain, listed = notes(NOTHING), notes({**NOTHING, "allowedHosts": ["a.example.com"]})
    assert "-H 'Host:" not in plain
    assert 3 == listed.count("-H 'Host: valence-auth'")
    assert "port-forward" in plain


def test_every_ingress_is_https_limited_and_bounded() -> None:
    ingresses = [o for o in objects(EXTERNAL) if o["kind"] == "Ingress"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert len(ingresses) == 5
    for ingress in ingresses:
        annotations = ingress["metadata"]["annotations"]
        assert annotations[f"{prefix}ssl-redirect"] == "true"
        assert {f"{prefix}limit-rps", f"{prefix}limit-rpm"} & set(annotations)
        assert f"{prefix}proxy-body-size" in annotations
        assert f"{prefix}proxy-read-timeout" in annotations
        assert ingress["spec"]["tls"] == [
            {"hosts": ["sentiment.example.com"], "secretName": "my-tls"}
        ]
    login = find_object(ingresses, "Ingress", "valence-login")["metadata"]["annotations"]
    assert login[f"{prefix}limit-rpm"] == "30"
    assert login[f"{prefix}limit-burst-multiplier"] == "1"


def test_annotations_of_the_user_override_the_charts() -> None:
    """Each Ingress has a key once; other annotations are unchanged."""
    key = "nginx.ingress.kubernetes.io/proxy-connect-timeout"
    own = {key: "7", "example.com/team": "text"}
    ingresses = [
        o for o in objects(changed(EXTERNAL, "ingress.annotations", own)) if o["kind"] == "Ingress"
    ]
    before = [o for o in objects(EXTERNAL) if o["kind"] == "Ingress"]
    for ingress, plain in zip(ingresses, before, strict=True):
        assert {**plain["metadata"]["annotations"], **own} == ingress["metadata"]["annotations"]
    assert 5 == rendered(changed(EXTERNAL, "ingress.annotations", own)).count(f"{key}:")


def test_streams_are_neither_buffered_nor_cut() -> None:
    """Progress streams, downloads and the WebSocket: an idle timeout of an hour, or none."""
    gateway = {"enabled": True, "parentRefs": [{"name": "edge"}]}
    values = changed(EXTERNAL, "ingress.streamSeconds", 1234) | {"gateway": gateway}
    found = objects(values)
    prefix = "nginx.ingress.kubernetes.io/"
    stream = find_object(found, "Ingress", "valence-stream")
    annotations = stream["metadata"]["annotations"]
    assert annotations[f"{prefix}proxy-buffering"] == "off"
    for timeout in ("read", "send"):
        assert annotations[f"{prefix}proxy-{timeout}-timeout"] == "1234"
    paths = {p["path"]: p for p in stream["spec"]["rules"][0]["http"]["paths"]}
    assert {path: p["backend"]["service"]["name"] for path, p in paths.items()} == {
        "/api/v1/sentiment/task": "valence-inference",
        "/api/v1/sentiment/stream": "valence-inference",
        "/api/v1/users/me/export": "valence-auth",
    }
    rules = find_object(found, "HTTPRoute", "valence")["spec"]["rules"]
    timeouts = {r["matches"][0]["path"]["value"]: r["timeouts"]["request"] for r in rules}
    # A Gateway's timeout limits the whole exchange, uploads included.
    assert {timeouts[path] for path in [*paths, "/api/v1/sentiment/analyze/batch"]} == {"0s"}
    assert timeouts["/"] == "60s"
    for ingress in (o for o in found if o["kind"] == "Ingress"):
        # nginx forwards upgrades by default; these annotations would prevent it.
        assert f"{prefix}connection-proxy-header" not in ingress["metadata"]["annotations"]
        assert f"{prefix}backend-protocol" not in ingress["metadata"]["annotations"]
