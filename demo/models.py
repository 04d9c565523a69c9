"""Loading a model, and the two questions the demo asks it: how likely is this text, what do you say."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from demo.texts import read_texts

QUESTION = "What is a tuple in Python?"
REPLY_TOKENS = 20

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class Score:
    """What a model is worth: layers, perplexity by domain, a reply."""

    layers: int
    perplexity: dict[str, float]
    reply: str


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint as any user would; stops if a tensor is missing or not wanted.

    float32 for speed only: many CPUs have no bfloat16 arithmetic.
    """
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {key: sorted(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]}
    if wrong:
        raise SystemExit(f"{folder} does not load cleanly: {wrong}")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> torch.Tensor:
    """The ids of a text, [tokens]; quiet about texts longer than the model's window."""
    return tokenizer(text, return_tensors="pt", verbose=False).input_ids[0]


@torch.inference_mode()
def judge(folder: Path) -> Score:
    """Perplexity on both held-out texts and one greedy reply."""
    model, tokenizer = load(folder)
    perplexity = {}
    for domain, (_, held_out) in read_texts().items():
        ids = encode(tokenizer, held_out)[None]
        perplexity[domain] = math.exp(model(ids, labels=ids).loss.item())
    chat = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=REPLY_TOKENS, do_sample=False)
    reply = tokenizer.decode(answer[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return Score(model.config.num_hidden_layers, perplexity, " ".join(reply.split()))


def judge_once(folder: Path) -> Score:
    """As `judge`, remembered beside the model: the demo's own models do not change."""
    memory = folder / "demo_score.json"
    key = hashlib.sha256(repr((read_texts(), QUESTION, REPLY_TOKENS)).encode()).hexdigest()
    if memory.exists():
        remembered = json.loads(memory.read_text())
        if remembered.pop("key") == key:
            return Score(**remembered)
    score = judge(folder)
    memory.write_text(json.dumps({"key": key, **asdict(score)}))
    return score
