"""Random recipes on random small checkpoints, with random kills, interrupts, damage, threads, budgets,
instruction sets and backends; every merge must end with the bytes of an uninterrupted one.

    python -m tools.soak --minutes 30 [--seed 1] [--methods ties,slerp] [--backends cpu,reference]
    python -m tools.soak --kills 50 --methods ties      # until 50 attempts were stopped

Prints what was run as one line of JSON; exits with 1 if a merge lost or changed a byte, or failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from pymerge.execute.journal import JOURNAL
from pymerge.methods import method_names
from pymerge.output.folder import CONFIG
from tools.soak.faults import SIGNALS, Outcome, Settings, attempt, damage
from tools.soak.recipes import make_recipe, write_models

#: Attempts at one merge before the next is left alone.
_STRIKES = 4


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of the weight files."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("model*"))}


class Soak:
    """The run's state: what is counted, and what went wrong."""

    def __init__(self, folder: Path, seed: int, backends: list[str]) -> None:
        self.random = Random(seed)
        self.folder = folder
        self.backends = backends
        self.models = write_models(folder / "models", seed)
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0
        self.wrong: list[str] = []

    def run_one(self, method: str) -> None:
        """One recipe: merged at one go, then with faults until it is done."""
        random = self.random
        recipe = make_recipe(method, self.models, random)
        made = {"shard_size": random.choice([0, 300_000, 1_000_000]), "seed": random.randrange(100)}
        whole, out = self.folder / "whole", self.folder / "out"
        for folder in (whole, out):
            shutil.rmtree(folder, ignore_errors=True)
        first = attempt(recipe, whole, Settings.draw(random, ["cpu"]), **made)
        if first.ended == "refused":
            self.counts["refused"] += 1
            return
        self.counts["merges"] += 1
        expected = digest(whole)
        faults: list[str] = []
        outcome = first
        for strikes in range(_STRIKES + 1):
            # The last attempt is left alone.
            kind = random.choice(list(SIGNALS)) if strikes < _STRIKES else ""
            strike = (int(SIGNALS[kind]), random.uniform(0, 1.2 * first.seconds)) if kind else None
            outcome = attempt(recipe, out, Settings.draw(random, self.backends), strike=strike, **made)
            self.counts["attempts"] += 1
            self.counts["resumed"] += outcome.kept > 0
            if outcome.ended != "stopped":
                break
            faults.append(kind)
            self.counts[kind] += 1
            if kind == "interrupt":
                self.slowest = max(self.slowest, outcome.lingered)
            if (out / CONFIG).exists() and digest(out) != expected:
                self.wrong.append(f"{recipe} {made} {faults}: looked complete and was not")
            if (out / CONFIG).exists() and not (out / JOURNAL).exists():
                return  # the signal came when all was done
            if kind == "kill" and (what := damage(out, random)) != "nothing":
                faults.append(what)
                self.counts[f"damage: {what}"] += 1
        self._judge(recipe, made, faults, outcome, expected == digest(out))

    def _judge(self, recipe: object, made: object, faults: list[str], outcome: Outcome, same: bool) -> None:
        if outcome.ended != "done":
            self.wrong.append(f"{recipe} {made} {faults}: {outcome.ended}: {outcome.message}")
        elif not same:
            self.wrong.append(f"{recipe} {made} {faults}: other bytes")

    @property
    def stopped(self) -> int:
        """Attempts that a signal ended."""
        return sum(self.counts[kind] for kind in SIGNALS)


def main() -> int:
    """Run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0, help="how long; or give --kills")
    parser.add_argument("--kills", type=int, default=0, help="stop after so many attempts were stopped")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", default=",".join(method_names()))
    parser.add_argument("--backends", default="cpu,reference")
    parser.add_argument("--folder", type=Path, help="where to merge; made, and removed again")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=options.folder))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    soak = Soak(folder, options.seed, options.backends.split(","))
    methods = options.methods.split(",")
    began = time.monotonic()
    try:
        while (soak.stopped < options.kills) or time.monotonic() - began < options.minutes * 60:
            soak.run_one(
                methods[soak.counts["merges"] % len(methods)] if options.kills else soak.random.choice(methods)
            )
            if soak.counts["refused"] > 100 + 10 * soak.counts["merges"]:
                soak.wrong.append("nearly every recipe is refused")
                break
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = {**soak.counts, "losses": len(soak.wrong), "slowest stop": round(soak.slowest, 2)}
    print(json.dumps({"minutes": round((time.monotonic() - began) / 60, 1), "seed": options.seed, **told}))
    for line in soak.wrong[:10]:
        print(line, file=sys.stderr)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
