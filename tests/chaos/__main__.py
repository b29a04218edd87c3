"""`make chaos SEEDS=10` runs this: the long form, once a seed; exits with 1 unless all is whole."""

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from chaos.run import LONG, run


def main() -> int:
    """Run each seed and print its line; how many failed."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--first", type=int, default=1, metavar="SEED", help="the first seed")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="how many of them")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        whole = False
        try:
            with tempfile.TemporaryDirectory(prefix="valence-chaos-") as folder:
                verdict = run(LONG, seed, Path(folder))
            print(verdict.line(), flush=True)
            whole = verdict.whole
        except Exception:  # noqa: BLE001 - the other seeds are run all the same
            print(f"seed {seed} was not run to its end:", traceback.format_exc(), flush=True)
        if not whole:
            failed += 1
            print(f"  again: make chaos SEED={seed} SEEDS=1", flush=True)
    return failed


sys.exit(1 if main() else 0)
