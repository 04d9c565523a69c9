"""The options that commands share, and those of mergekit, as data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

import pymerge
from pymerge.cli.console import Format, note
from pymerge.cli.guard import Session
from pymerge.cli.quantities import parse_memory, parse_shard_size

__all__ = ["Backend", "accept_peer_options", "choose_backend", "explained"]

P = ParamSpec("P")
R = TypeVar("R")


class Backend(str, Enum):
    """The backends, as `--backend` spells them."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TRITON = "triton"
    REFERENCE = "reference"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pymerge {pymerge.__version__}")
        raise typer.Exit


def _make_verbose(ctx: typer.Context, wanted: bool) -> bool:
    ctx.ensure_object(Session).verbose |= wanted
    return wanted


def explained(parse: Callable[[str], int]) -> Callable[[str], int]:
    """A parser whose errors are shown with what they say."""

    @functools.wraps(parse)
    def convert(text: str) -> int:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return convert


show_version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
]
recipe = Annotated[str, typer.Argument(help="The recipe: a YAML file.", metavar="RECIPE")]
backend = Annotated[Backend, typer.Option("--backend", help="What does the arithmetic; the bytes are the same.")]
threads = Annotated[
    int | None,
    typer.Option("--threads", "-j", "--num-threads", min=1, help="Worker threads. [default: all processors]"),
]
memory = Annotated[
    int | None,
    typer.Option(
        "--memory", parser=explained(parse_memory), metavar="SIZE", help="Memory the merge may hold, such as 2GiB."
    ),
]
vram = Annotated[
    int | None,
    typer.Option(
        "--vram",
        parser=explained(parse_memory),
        metavar="SIZE",
        help="Memory of each GPU that may be used. [default: most of it]",
    ),
]
seed = Annotated[int, typer.Option("--seed", "--random-seed", help="Seed of the random masks.")]
shard_size = Annotated[
    int,
    typer.Option(
        "--out-shard-size",
        parser=explained(parse_shard_size),
        metavar="SIZE",
        help="Bytes of an output file at most: 5B (5 billion), 500M, 1000k; 0: one file.",
    ),
]
dry_run = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")]
lenient = Annotated[bool, typer.Option("--lenient", help="Warn about what mergekit silently ignores; do not stop.")]
restart = Annotated[bool, typer.Option("--restart", help="Keep nothing of an unfinished merge in the output.")]
hash_inputs = Annotated[
    bool, typer.Option("--hash-inputs", help="Put the SHA-256 of every input file into the manifest.")
]
overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model that the output folder holds.")]
allow_crimes = Annotated[
    bool, typer.Option("--allow-crimes/--no-allow-crimes", help="Permit models of different architectures.")
]
allow_nonfinite = Annotated[
    bool, typer.Option("--allow-nonfinite", help="Store infinities and NaN, and count them, instead of stopping.")
]
reflink = Annotated[
    bool, typer.Option("--reflink/--no-reflink", help="Let copied tensors share disk space where the file system can.")
]
copy_tokenizer = Annotated[
    bool, typer.Option("--copy-tokenizer/--no-copy-tokenizer", help="Take the tokenizer over from the base model.")
]
write_model_card = Annotated[bool, typer.Option("--write-model-card/--no-write-model-card", help="Write README.md.")]
keep_stages = Annotated[
    bool, typer.Option("--keep-stages", help="Keep what each stage of the recipe makes, in OUT.stages.")
]
out_format = Annotated[
    str | None,
    typer.Option(
        "--out-format",
        metavar="FORMAT",
        help="safetensors, adapter, gguf, or gguf:f32, gguf:f16, gguf:bf16, gguf:q8_0. [default: by the name of OUT]",
    ),
]
gguf_like = Annotated[
    Path | None,
    typer.Option("--gguf-like", metavar="FILE", help="A GGUF file whose settings and tokenizer OUT takes over."),
]
cache = Annotated[
    Path | None,
    typer.Option(
        "--transformers-cache", metavar="DIR", help="Cache of the hub's models. [default: HF_HUB_CACHE, or HF_HOME/hub]"
    ),
]
push = Annotated[
    str | None,
    typer.Option(
        "--push", metavar="USER/NAME", help="Upload the result to the hub, each weight file when it is whole."
    ),
]
private = Annotated[bool, typer.Option("--private", help="Make the hub's repository a private one, if it is new.")]
tensors = Annotated[bool, typer.Option("--tensors", help="List every tensor.")]
answer = Annotated[Format, typer.Option("--format", help="How to answer.")]
quiet = Annotated[bool, typer.Option("--quiet/--no-quiet", "-q", help="Same as --format quiet.")]
verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_make_verbose, help="Print the traceback of an error.")
]


@dataclass(frozen=True, slots=True)
class PeerOption:
    """An option of mergekit that is accepted and changes nothing here; `reason` says why.

    Attributes:
        name: as the command line spells it.
        flag: True for a switch with a `--no-` form; else it takes a value.
    """

    name: str
    reason: str
    flag: bool = True


_LAZY = "weights are always mapped and read piece by piece"
_DEVICE = "--backend decides where the arithmetic runs, within --memory"
_WRITER = "reading, computing and writing always overlap"

_ADAPTERS = "adapters are applied in float32 while weights are read; nothing is stored on the way"

PEER_OPTIONS = (
    PeerOption("--lazy-unpickle", _LAZY),
    PeerOption("--clone-tensors", "output tensors never share memory"),
    PeerOption("--low-cpu-memory", _DEVICE),
    PeerOption("--read-to-gpu", _DEVICE),
    PeerOption("--multi-gpu", "name the GPUs: --device cuda:0,cuda:1"),
    PeerOption("--async-write", _WRITER),
    PeerOption("--write-threads", _WRITER, flag=False),
    PeerOption("--safe-serialization", "the output is always safetensors"),
    PeerOption("--trust-remote-code", "code that comes with a model is never run"),
    PeerOption("--lora-merge-cache", _ADAPTERS, flag=False),
    PeerOption("--lora-merge-dtype", _ADAPTERS, flag=False),
    PeerOption("--unsafe-truncate-embeddings", "embeddings of different sizes are refused, never cut"),
)

#: mergekit's names of devices, as backends.
PEER_DEVICES = {"auto": Backend.AUTO, "cpu": Backend.CPU, "cuda": Backend.CUDA}

device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAMES", help="The GPUs, such as cuda:0,cuda:1; they share the tensors."),
]
cuda = Annotated[bool, typer.Option("--cuda/--no-cuda", help="Same as --backend cuda.", hidden=True)]
gpu_rich = Annotated[bool, typer.Option("--gpu-rich/--no-gpu-rich", help="Same as --backend cuda.", hidden=True)]


def choose_backend(backend: Backend, device: str | None, cuda: bool) -> tuple[str, tuple[str, ...]]:
    """The backend's name, and its devices; devices and mergekit's options count where --backend was left alone."""
    names = [] if device is None else [name.strip() for name in device.split(",")]
    for name in names:
        if name.split(":")[0] not in PEER_DEVICES:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(PEER_DEVICES)}", param_hint="--device")
    wanted = PEER_DEVICES[names[0].split(":")[0]] if names else Backend.AUTO
    if cuda:
        wanted = Backend.CUDA
    return str((wanted if backend is Backend.AUTO else backend).value), tuple(name for name in names if ":" in name)


def accept_peer_options(command: Callable[P, R]) -> Callable[..., R]:
    """Let `command` accept PEER_OPTIONS too; one note on stderr for each that is given."""

    @functools.wraps(command)
    def accepting(*args: Any, **kwargs: Any) -> R:
        for key, option in options.items():
            value = kwargs.pop(key)
            if value is not None:
                name = option.name if value is not False else option.name.replace("--", "--no-", 1)
                note(f"{name} has no effect: {option.reason}")
        return command(*args, **kwargs)

    options = {option.name.strip("-").replace("-", "_"): option for option in PEER_OPTIONS}
    signature = inspect.signature(command, eval_str=True)
    extra = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotate(option))
        for key, option in options.items()
    ]
    parameters = [*signature.parameters.values(), *extra]
    # Typer reads both, in every version.
    accepting.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # mypy knows no __signature__
    accepting.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return accepting


def _annotate(option: PeerOption) -> Any:
    name = option.name
    declared = f"{name}/{name.replace('--', '--no-', 1)}" if option.flag else name
    kind = bool if option.flag else str
    return Annotated[kind | None, typer.Option(declared, hidden=True)]
