"""A short fine-tune: a few dozen steps on the last layers, enough to make two different specialists."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch

from demo.models import encode, load
from demo.texts import read_texts

LAYERS = 8
STEPS = 36
WARMUP = 5
WINDOW = 512
# 1e-3 was no better on its own domain and cost the other one a tenth (SmolLM2-135M, 40 steps).
RATE = 5e-4


def tune(base: Path, domain: str, folder: Path) -> None:
    """Fine-tune `base` on one domain's text and save it in bfloat16, config.json last."""
    model, tokenizer = load(base)
    text = encode(tokenizer, read_texts()[domain][0])
    model.requires_grad_(False)
    weights = [weight for layer in model.model.layers[-LAYERS:] for weight in layer.parameters()]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * (1 - step / STEPS)
    )
    generator = torch.Generator().manual_seed(0)
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        start = int(torch.randint(0, len(text) - WINDOW, (1,), generator=generator))
        window = text[start : start + WINDOW][None]
        loss = model(window, labels=window).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        report(domain, step, loss.item(), time.monotonic() - started)
    save(model, base, folder)


def report(domain: str, step: int, loss: float, seconds: float) -> None:
    """Progress on stderr: in place on a terminal, now and then elsewhere."""
    left = seconds / step * (STEPS - step)
    line = f"  {domain}: step {step}/{STEPS}, loss {loss:.2f}, {left:.0f} s left"
    if sys.stderr.isatty():
        print(f"\r{line}   ", end="" if step < STEPS else "\n", file=sys.stderr, flush=True)
    elif step % 12 == 0:
        print(line, file=sys.stderr, flush=True)


def save(model: torch.nn.Module, base: Path, folder: Path) -> None:
    """Save the weights in bfloat16 with the base's tokenizer and config."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(partial)
    for path in base.glob("tokenizer*.json"):
        shutil.copyfile(path, partial / path.name)
    partial.rename(folder)
