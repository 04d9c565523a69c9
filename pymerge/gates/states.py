"""gate_mode hidden and hidden_avg: directions of prompts are states of the base, run once on each, by transformers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from pymerge.checkpoint import Checkpoint
from pymerge.config.moe import Expert
from pymerge.errors import FormatError, ResourceError
from pymerge.gates.prompts import Prompts
from pymerge.gates.reading import read_all
from pymerge.gates.vectors import point
from pymerge.kernels.common.convert import Array

__all__ = ["States"]

_PREFIX = "model."
#: Of a GPU's free memory that weights may take; the rest is for what they are worked with.
_SHARE = 0.9


class States:
    """The base in bfloat16, on a GPU if torch has one with room for it, and what it makes of prompts.

    Each prompt is run by itself: what others there are, and how long they are, changes nothing.
    """

    def __init__(self, base: Checkpoint, prompts: Prompts, *, average: bool) -> None:
        """Load the base.

        Args:
            average: whether a prompt's state is the mean over its tokens; else that of the last one.

        Raises:
            FormatError: transformers makes another model of config.json than the tensors are of.
            ResourceError: it does not fit in memory.
        """
        self._prompts = prompts
        self._average = average
        self._rows = base.tensors[f"{_PREFIX}embed_tokens.weight"].shape[0]
        try:
            self._model = _load(base)
        except (MemoryError, RuntimeError) as error:
            raise ResourceError(
                f'"{base.ref}" cannot be run for the states of prompts: {error}; gate_mode cheap_embed and random '
                "need no run"
            ) from error

    def find(self, expert: Expert) -> Array:
        """[layers, width] float64: directions among the states that enter each layer."""
        return point(self._mean(expert.positive), self._mean(expert.negative) if expert.negative else None)

    def close(self) -> None:
        """Let go of the base, and of what torch keeps of a GPU's memory."""
        import torch

        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _mean(self, texts: tuple[str, ...]) -> Array:
        total = sum(self._run(text) for text in texts)
        mean: Array = np.asarray(total) / len(texts)
        return mean

    def _run(self, text: str) -> Array:
        import torch

        ids = torch.tensor([self._prompts.encode(text, self._rows)], device=self._model.device)
        with torch.inference_mode():
            found = self._model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[:-1]
        picked = [state[0].double().mean(0) if self._average else state[0, -1].double() for state in found]
        states: Array = torch.stack(picked).cpu().numpy()
        return states


def _load(base: Checkpoint) -> Any:
    """The base without its head; weights are read one by one, whatever they are derived from."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**{**base.config, "tie_word_embeddings": False})
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    size = sum(2 * source.count for source in base.tensors.values())
    device = _choose_device(torch, size)
    state = {
        name.removeprefix(_PREFIX): _to_torch(torch, read_all(source), source.dtype.name).to(device, torch.bfloat16)
        for name, source in base.tensors.items()
        if name.startswith(_PREFIX)
    }
    absent = model.load_state_dict(state, strict=False, assign=True).missing_keys
    # What it works out for itself is not stored.
    model.rotary_emb = type(model.rotary_emb)(config=config).to(device)
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    absent += [name for name, tensor in named if tensor.is_meta and name not in absent]
    if absent:
        raise FormatError(f'"{base.ref}": transformers needs {absent[0]} to run it, which it does not have')
    return model.eval()


def _to_torch(torch: Any, values: Array, dtype: str) -> Any:
    words = torch.from_numpy(values.view(f"i{values.dtype.itemsize}"))
    return words.view(getattr(torch, dtype))


def _choose_device(torch: Any, size: int) -> str:
    fits = torch.cuda.is_available() and size < _SHARE * torch.cuda.mem_get_info()[0]
    return "cuda" if fits else "cpu"
