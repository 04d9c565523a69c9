"""What decides the bytes of an output: by this a later attempt knows whether it may go on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pymerge
from pymerge.checkpoint.sources import Given, describe_source
from pymerge.output.fingerprint import fingerprint
from pymerge.schedule.values import Schedule

__all__ = ["describe_differences", "make_identity"]


def make_identity(schedule: Schedule, *, hash_inputs: bool = False) -> dict[str, Any]:
    """The identity of what a schedule makes, as plain values.

    Args:
        hash_inputs: with a digest of each input file's data, which reads all of them.
    """
    plan = schedule.plan
    tasks = hashlib.blake2b(digest_size=16)
    for task in plan.tasks:
        sources = [(label, describe_source(source)) for label, source in zip(task.labels, task.sources, strict=True)]
        tasks.update(repr((task.name, task.dtype, task.compute, task.must_agree, sources, task.inputs)).encode())
    given = [task.sources[0].settings for task in plan.tasks if isinstance(task.sources[0], Given)]
    layout = hashlib.blake2b(digest_size=16)
    for shard in schedule.shards:
        layout.update(repr((shard.name, shard.size)).encode() + shard.header)
    return {
        "pymerge": pymerge.__version__,
        "method": plan.method.name,
        "seed": plan.seed,
        "inputs": [fingerprint(model, whole=hash_inputs) for model in plan.models],
        "recipe": plan.config.text,
        "tasks": tasks.hexdigest(),
        "layout": layout.hexdigest(),
        **({"given": hashlib.blake2b(repr(given).encode(), digest_size=16).hexdigest()} if given else {}),
    }


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, one sentence each; none if the bytes are the same."""
    found = [
        f"{name}: was {before.get(key)}, is {now.get(key)}"
        for key, name in (("pymerge", "pymerge's version"), ("method", "merge method"), ("seed", "--seed"))
        if before.get(key) != now.get(key)
    ]
    found += _compare_inputs(before.get("inputs"), now["inputs"])
    if found:
        return found
    if before.get("recipe") == now["recipe"] and before.get("given") != now.get("given"):
        return [
            "rows of routers: the base gives other states for the prompts, by another device, torch or transformers"
        ]
    if before.get("tasks") != now["tasks"]:
        return [_compare_recipes(str(before.get("recipe") or ""), str(now["recipe"] or ""))]
    if before.get("layout") != now["layout"]:
        return ["the output's files: --shard-size was another"]
    return []


def _compare_inputs(before: Any, now: list[dict[str, Any]]) -> Iterator[str]:
    if not isinstance(before, list) or [_label(model) for model in before] != [_label(model) for model in now]:
        yield "models: the recipe named others"
        return
    for old, new in zip(before, now, strict=True):
        files = {file["name"]: file for file in old["files"]}
        for file in new["files"]:
            known = files.pop(file["name"], None)
            if known is None:
                yield f"model {new['model']}: file {file['name']} is new"
                continue
            # A digest of the whole file is there only where the user asked for it.
            changed = [key for key in known.keys() & file.keys() if known[key] != file[key]]
            if changed:
                yield f"model {new['model']}: file {file['name']} changed ({', '.join(sorted(changed))})"
        for name in files:
            yield f"model {new['model']}: file {name} is gone"


def _label(model: Any) -> Any:
    return model.get("model") if isinstance(model, dict) else None


def _compare_recipes(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    for number in range(max(len(old), len(new))):
        was, is_ = (lines[number].strip() if number < len(lines) else "" for lines in (old, new))
        if was != is_:
            return f"recipe, line {number + 1}: was {was!r}, is {is_!r}"
    return "options that decide about tensors, such as --lenient or --allow-crimes, were others"
