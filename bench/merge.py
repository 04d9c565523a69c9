"""Whole merges against the floor: wall, CPU and memory of fresh processes, in one run.

    python -m bench.merge [FOLDER] [--methods slerp,ties] [--rounds 5] [--dtype bf16] [--layers 22]
                          [--threads 2] [--cold] [--peer 'NAME=COMMAND {recipe} {out}'] [--out results.jsonl]

The floor is the best of the rounds of reading every input byte once, plus the best over the plain ways
of writing the output's bytes (buffered, direct, cp). Rounds alternate, so that a noisy minute hits
everything alike. Ratios are median wall over the floor's best; CPU seconds stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .checkpoints import DTYPES, Shape, write_models
from .floor import read_all, write_means

_TUNED = ("ties", "dare_ties", "dare_linear", "task_arithmetic")
METHODS = ("passthrough", "linear", "slerp", "task_arithmetic", "ties", "ties-3", "dare_linear", "dare_ties")


def make_recipe(method: str, models: list[Path], layers: int) -> tuple[dict[str, Any], list[Path]]:
    """(recipe, models it reads) of a benchmark's method; "ties-3" merges three fine-tunes."""
    kind, _, count = method.partition("-")
    base, *tuned = models
    if kind == "passthrough":
        return {"merge_method": kind, "models": [{"model": str(base)}]}, [base]
    if kind == "slerp":
        sources = [{"model": str(m), "layer_range": [0, layers]} for m in (base, tuned[0])]
        recipe = {"slices": [{"sources": sources}], "base_model": str(base), "parameters": {"t": [0.1, 0.5, 0.9]}}
        return {"merge_method": kind, **recipe}, [base, tuned[0]]
    used = tuned[: int(count or 2)] if kind in _TUNED else [base, tuned[0]]
    density = {"density": 0.5} if kind in ("ties", "dare_ties", "dare_linear") else {}
    entries = [{"model": str(m), "parameters": {"weight": 0.4, **density}} for m in used]
    recipe = {"merge_method": kind, "models": entries}
    return (recipe | {"base_model": str(base)}, [base, *used]) if kind in _TUNED else (recipe, used)


def _resident(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return int(values.get("RssAnon", 0)) * 1024, int(values.get("RssFile", 0)) * 1024


def run(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """One fresh process: wall and CPU seconds, peak anonymous and file-backed memory."""
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ | environment, file_actions=_quiet())
    peaks = [0, 0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for i, value in enumerate(_resident(pid)):
                peaks[i] = max(peaks[i], value)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    done.set()
    watcher.join()
    if status:
        raise SystemExit(f"{shlex.join(command)} failed with status {os.waitstatus_to_exitcode(status)}")
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "anonymous": peaks[0],
        "file_backed": peaks[1],
    }


def _quiet() -> list[tuple[Any, ...]]:
    return [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]


def drop_caches(paths: list[Path]) -> None:
    """Have the inputs read from the disk again: their pages are dropped from the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds of all methods; one record per method and command."""
    shape = Shape(layers=options.layers)
    models = write_models(options.folder, shape, 4, options.dtype)
    out = options.folder / "out"
    commands = {"pymerge": f"{sys.executable} -m pymerge merge {{recipe}} {{out}} --threads {options.threads}"}
    commands |= dict(peer.split("=", 1) for peer in options.peer)
    records = []
    for method in options.methods.split(","):
        recipe, used = make_recipe(method, models, shape.layers)
        recipe["dtype"] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[options.dtype]
        path = options.folder / f"{method}.yml"
        path.write_text(json.dumps(recipe, indent=1))  # JSON is YAML
        files = [model / "model.safetensors" for model in used]
        writers = write_means(options.folder, files[0].stat().st_size, files[0])
        reads: list[float] = []
        writes: dict[str, list[float]] = {name: [] for name in writers}
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            if options.cold:
                drop_caches(files)
            reads.append(read_all(files))
            for name, write in writers.items():
                writes[name].append(write())
            for name, template in commands.items():
                shutil.rmtree(out, ignore_errors=True)
                if options.cold:
                    drop_caches(files)
                filled = template.replace("{recipe}", str(path)).replace("{out}", str(out))
                runs[name].append(run(shlex.split(filled), {"PYTHONWARNINGS": "ignore"}))
        best = min(reads) + min(min(times) for times in writes.values())
        median = statistics.median(reads) + min(statistics.median(times) for times in writes.values())
        for name, results in runs.items():
            walls = [result["wall"] for result in results]
            records.append(
                {
                    "method": method,
                    "command": name,
                    "cold": options.cold,
                    "dtype": options.dtype,
                    "layers": shape.layers,
                    "input_bytes": sum(file.stat().st_size for file in files),
                    "output_bytes": files[0].stat().st_size,
                    "wall": statistics.median(walls),
                    "wall_best": min(walls),
                    "wall_worst": max(walls),
                    "cpu": statistics.median(result["cpu"] for result in results),
                    "anonymous": max(result["anonymous"] for result in results),
                    "file_backed": max(result["file_backed"] for result in results),
                    "read": min(reads),
                    "floor": best,
                    "floor_median": median,
                    "ratio": statistics.median(walls) / best,
                    "writes": {key: min(times) for key, times in writes.items()},
                    "machine": {
                        "processor": processor(),
                        "threads": options.threads,
                        "python": platform.python_version(),
                    },
                }
            )
            print_row(records[-1], header=len(records) == 1)
    shutil.rmtree(out, ignore_errors=True)
    return records


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def print_row(record: dict[str, Any], header: bool) -> None:
    """One line of the table."""
    if header:
        print(
            f"{'method':16} {'command':8} {'wall s (best..worst)':>22} {'cpu s':>6} {'anon':>6} {'file':>6} "
            f"{'floor best/median':>18} {'wall/floor':>10}"
        )
    spread = f"{record['wall']:.2f} ({record['wall_best']:.2f}..{record['wall_worst']:.2f})"
    print(
        f"{record['method']:16} {record['command']:8} {spread:>22} {record['cpu']:6.2f} "
        f"{record['anonymous'] >> 20:5}M {record['file_backed'] >> 20:5}M "
        f"{record['floor']:9.2f}/{record['floor_median']:.2f} {record['ratio']:12.2f}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path(".cache/bench"),
        help="for checkpoints (kept) and outputs (removed)",
    )
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--layers", type=int, default=Shape().layers)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cold", action="store_true", help="drop the inputs from the page cache before each run")
    parser.add_argument("--peer", action="append", default=[], help="'NAME=COMMAND {recipe} {out}', may be repeated")
    parser.add_argument("--out", type=Path, help="append the records as JSON lines")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    records = measure(options)
    if options.out:
        with options.out.open("a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
