"""The compiled scorer compared with scikit-learn: `python benchmarks/scorer.py [RELEASE]`.

The reference is the scikit-learn pipeline that the release was compiled from, rebuilt from its
weights. The start-up time and memory of the compiled scorer are measured in a separate process
without scikit-learn. Everything runs on one thread; the figures are medians, and the ratios of one
run matter most.
"""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

import valence_ml
from valence_ml import release
from valence_ml.compiling import reference_pipeline
from valence_ml.linear import WEIGHTS, LinearWeights

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample.tsv"
ODD = ["", " ", "\x00", "\ud800", "\U0001f600" * 50, "a" * 10_000, "good " * 2_000, "it's " * 2_000]
ROUNDS = 7

START = """
import time
begin = time.perf_counter()
import valence_ml
from pathlib import Path
scorer = valence_ml.load(Path({path!r}))
took = time.perf_counter() - begin
pages = int(Path("/proc/self/statm").read_text().split()[1])
print(took, pages * 4096 / 2**20)
"""


def main() -> None:
    """Print parity, speed, start-up time and memory."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else valence_ml.DEFAULT_MODEL
    scorer = valence_ml.load(path)
    manifest, files = release.read(path)
    pipeline = reference_pipeline(manifest, LinearWeights.unpack(files[WEIGHTS]))
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()[1:]
    texts = [line.partition("\t")[2] for line in lines]
    short = [text for text in texts if 6 <= len(text.split()) <= 14]
    long = _long(texts)
    many = [short[index % len(short)] for index in range(4_096)]
    with threadpool_limits(limits=1):
        print(f"{manifest.name} {manifest.version}, {len(texts)} sample texts")
        _parity(scorer, pipeline, texts + long + ODD + _shuffled(texts, 4_096))
        _compare("one short text", short, 1, 300, scorer.score, pipeline.predict_proba)
        _compare("one text of 200 words", long, 1, 100, scorer.score, pipeline.predict_proba)
        _compare("4,096 short texts", many, 4_096, 1, scorer.score, pipeline.predict_proba)
    command = [sys.executable, "-c", START.format(path=str(path))]
    starts = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        for _ in range(ROUNDS)
    ]
    seconds = statistics.median(float(start[0]) for start in starts)
    memory = statistics.median(float(start[1]) for start in starts)
    print(
        f"import and load: {seconds * 1e3:.0f} ms; resident memory of the process: {memory:.0f} MiB"
    )
    size = sum(entry.size for entry in manifest.files.values())
    print(f"release: {size / 1e3:.0f} kB")


def _parity(scorer: valence_ml.Scorer, pipeline: object, texts: Sequence[str]) -> None:
    expected = pipeline.predict_proba(texts)[:, 1]
    difference = max(
        abs(score.positive - float(positive))
        for score, positive in zip(scorer.score(texts), expected, strict=True)
    )
    print(f"parity: largest difference {difference:.1e} on {len(texts)} texts (budget 1e-9)")


def _compare(
    what: str,
    texts: Sequence[str],
    size: int,
    calls: int,
    compiled: Callable[[list[str]], object],
    reference: Callable[[list[str]], object],
) -> None:
    compiled_times, reference_times = [], []
    # Alternating, so that load on the machine affects both.
    for _ in range(ROUNDS):
        compiled_times.append(_per_text(compiled, texts, size, calls))
        reference_times.append(_per_text(reference, texts, size, calls))
    fast, slow = statistics.median(compiled_times), statistics.median(reference_times)
    print(
        f"{what}: compiled {fast * 1e6:.1f} us a text ({1 / fast:,.0f}/s), "
        f"scikit-learn {slow * 1e6:.1f} us ({1 / slow:,.0f}/s), {slow / fast:.1f} times faster"
    )


def _per_text(
    score: Callable[[list[str]], object], texts: Sequence[str], size: int, calls: int
) -> float:
    """Return the median seconds per text of `calls` calls with `size` texts."""
    took = []
    for call in range(calls):
        batch = [texts[(call * size + index) % len(texts)] for index in range(size)]
        begin = time.perf_counter()
        score(batch)
        took.append((time.perf_counter() - begin) / size)
    return statistics.median(took)


def _long(texts: Sequence[str]) -> list[str]:
    """Return texts of exactly 200 words from the sample's reviews."""
    words = " ".join(text for text in texts if len(text) > 300).split()
    return [" ".join(words[at : at + 200]) for at in range(0, len(words) - 200, 200)]


def _shuffled(texts: Sequence[str], count: int) -> list[str]:
    """Return texts of random words of the sample: sequences of words that no text has."""
    words = " ".join(texts).split()
    generator = random.Random(0)
    return [" ".join(generator.choices(words, k=generator.randint(1, 60))) for _ in range(count)]


if __name__ == "__main__":
    main()
