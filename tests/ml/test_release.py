"""A release that differs from what was packed is rejected with one sentence, before opening."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import valence_ml
from support.required import require

Pack = Callable[[], Path]
Break = Callable[[Path], object]


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rehash(directory: Path, name: str) -> None:
    data = (directory / name).read_bytes()
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(directory, lambda manifest: manifest["files"].update({name: entry}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(directory: Path) -> None:
    outside = directory.parent / "outside"
    (directory / "weights.npz").rename(outside)
    (directory / "weights.npz").symlink_to(outside)


def link_manifest(directory: Path) -> None:
    outside = directory.parent / "outside.json"
    (directory / "manifest.json").rename(outside)
    (directory / "manifest.json").symlink_to(outside)


def pipe(directory: Path) -> None:
    (directory / "weights.npz").unlink()
    os.mkfifo(directory / "weights.npz")


def folder(directory: Path) -> None:
    (directory / "weights.npz").unlink()
    (directory / "weights.npz").mkdir()


def traverse(name: str) -> Break:
    def change(directory: Path) -> None:
        edit(
            directory,
            lambda manifest: manifest["files"].update({name: manifest["files"]["weights.npz"]}),
        )

    return change


def overwrite(name: str, data: bytes) -> Break:
    def change(directory: Path) -> None:
        (directory / name).write_bytes(data)
        if name != "manifest.json":
            rehash(directory, name)

    return change


def change_manifest(**values: object) -> Break:
    return lambda directory: edit(directory, lambda manifest: manifest.update(values))


def shift_golden(difference: float) -> Break:
    """Add `difference` to the probability of the first golden prediction."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"][0]["positive"] += difference

    return lambda directory: edit(directory, change)


def change_linear(**values: object) -> Break:
    return lambda directory: edit(directory, lambda manifest: manifest["linear"].update(values))


BROKEN: dict[str, tuple[Break, str]] = {
    "manifest missing": (lambda at: (at / "manifest.json").unlink(), r"manifest\.json is missing"),
    "weights missing": (lambda at: (at / "weights.npz").unlink(), r"weights\.npz is missing"),
    "card missing": (lambda at: (at / "MODEL_CARD.md").unlink(), r"MODEL_CARD\.md is missing"),
    "extra file": (lambda at: (at / "x.py").touch(), r"x\.py is not part of the release"),
    "extra folder": (lambda at: (at / "x").mkdir(), r"x is not part of the release"),
    "truncated": (lambda at: os.truncate(at / "weights.npz", 100), r"weights\.npz is truncated"),
    "emptied": (lambda at: os.truncate(at / "weights.npz", 0), r"weights\.npz is truncated"),
    "longer": (
        lambda at: (at / "weights.npz").open("ab").write(b"x"),
        r"weights\.npz is larger",
    ),
    "byte flipped": (lambda at: flip(at / "weights.npz"), r"weights\.npz does not match"),
    "card edited": (lambda at: flip(at / "MODEL_CARD.md"), r"MODEL_CARD\.md does not match"),
    "wrong sha256": (
        lambda at: edit(at, lambda m: m["files"]["weights.npz"].update(sha256="0" * 64)),
        r"weights\.npz does not match",
    ),
    "short sha256": (
        lambda at: edit(at, lambda m: m["files"]["weights.npz"].update(sha256="0")),
        r"not a model manifest",
    ),
    "path upwards": (traverse("../outside"), r"not a model manifest"),
    "path downwards": (traverse("a/b"), r"not a model manifest"),
    "absolute path": (traverse("/etc/passwd"), r"not a model manifest"),
    "hidden name": (traverse(".."), r"not a model manifest"),
    "line break in a name": (traverse("weights.npz\n"), r"not a model manifest"),
    "NUL in a name": (traverse("a\x00b"), r"not a model manifest"),
    "symbolic link": (link, r"weights\.npz is a symbolic link"),
    "manifest a link": (link_manifest, r"manifest\.json is a symbolic link"),
    "named pipe": (pipe, r"weights\.npz is not a regular file"),
    "folder for a file": (folder, r"weights\.npz is not a regular file"),
    "manifest not JSON": (overwrite("manifest.json", b"\x00\xff{"), r"not a model manifest"),
    "manifest empty": (overwrite("manifest.json", b""), r"not a model manifest"),
    "manifest a list": (overwrite("manifest.json", b"[]"), r"not a model manifest"),
    "manifest too deep": (overwrite("manifest.json", b"[" * 100_000), r"not a model manifest"),
    "manifest too large": (overwrite("manifest.json", b" " * 2_000_000), r"is larger than"),
    "manifest not UTF-8": (overwrite("manifest.json", b'{"format":"\xff"}'), r"not a model manif"),
    "newer format": (change_manifest(format=2, something="new"), r"format 2 .* upgrade Valence"),
    "unknown field": (change_manifest(something="new"), r"not a model manifest"),
    "unknown kind": (change_manifest(kind="pickle"), r"not a model manifest"),
    "labels swapped": (change_manifest(labels=["positive", "negative"]), r"not a model manifest"),
    "nothing golden": (change_manifest(golden=[]), r"not a model manifest"),
    "name of a path": (change_manifest(name="../x"), r"not a model manifest"),
    "golden differs": (
        change_manifest(golden=[{"text": "I love it", "positive": 0.123}]),
        r"gives 0\.\d+ where its manifest promises 0\.123",
    ),
    "golden off by 1e-6": (shift_golden(1e-6), r"where its manifest promises"),
    "golden off by 2e-9": (shift_golden(-2e-9), r"where its manifest promises"),
    "bias changed": (change_linear(bias=0.75), r"where its manifest promises"),
    "bias not a number": (change_linear(bias=None), r"not a model manifest"),
    "normaliser unknown": (change_linear(normaliser="x"), r"does not say how to split"),
    "pattern broken": (change_linear(token_pattern="("), r"token_pattern is invalid"),
    "range upside down": (change_linear(ngram_range=[2, 1]), r"ngram_range"),
    "range from zero": (change_linear(ngram_range=[0, 1]), r"ngram_range"),
    "no settings": (change_manifest(linear=None), r"does not say how to split"),
    "weights not listed": (
        lambda at: (
            (at / "weights.npz").unlink(),
            edit(at, lambda manifest: manifest["files"].pop("weights.npz")),
        ),
        r"lists no weights\.npz",
    ),
    "weights not an archive": (overwrite("weights.npz", b"PK\x03\x04 no"), r"cannot be used"),
    "joblib not listed": (change_manifest(kind="joblib"), r"lists no pipeline\.joblib"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_release_is_refused_with_a_sentence(case: str, pack: Pack) -> None:
    """ModelError names the file and what is wrong with it; no other error is raised."""
    change, sentence = BROKEN[case]
    directory = pack()
    change(directory)
    with pytest.raises(valence_ml.ModelError, match=sentence) as caught:
        valence_ml.load(directory)
    assert "\n" not in str(caught.value).strip()


def test_rounding_of_golden_predictions_is_tolerated(pack: Pack) -> None:
    """Below 1e-9 a difference is rounding of another platform."""
    directory = pack()
    shift_golden(5e-10)(directory)
    valence_ml.load(directory)


def test_complete_release_loads(pack: Pack) -> None:
    """A packed release loads, also by a path that is a string or a link to the folder."""
    directory = pack()
    pointer = directory.with_name("current")
    pointer.symlink_to(directory)
    for path in (directory, pointer, str(directory)):
        scorer = valence_ml.load(path)
        assert (scorer.name, scorer.version) == ("small", "1.2.3")


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_missing_folder_is_refused(name: str, tmp_path: Path) -> None:
    """A missing folder, or a file in its place, is a ModelError too."""
    (tmp_path / "file").touch()
    with pytest.raises(valence_ml.ModelError, match="is not a folder"):
        valence_ml.load(tmp_path / name)


def test_unreadable_file_is_refused(pack: Pack) -> None:
    """A file without permission is a ModelError."""
    require("user", os.geteuid() != 0, "root reads everything")
    directory = pack()
    (directory / "weights.npz").chmod(0)
    with pytest.raises(valence_ml.ModelError, match="cannot be read"):
        valence_ml.load(directory)
