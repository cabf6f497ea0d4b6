"""A training that measures itself, for overhead.py: it trains for so many seconds and writes down how it went.

usage: training.py RESULT SECONDS STATE_BYTES [--plain]

With PyTorch a network whose parameters, gradients and moments of Adam take STATE_BYTES together, all of which change at
every step; without it, or with --plain, arithmetic in plain Python beside so much memory, a page of which changes.
RESULT gets a JSON document: steps, seconds, and the longest time from one step to the next.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

_WARM_UP = 5
_BYTES_PER_NUMBER = 4 * 4  # a float32 each for the parameter, its gradient and Adam's two moments


def train_with_torch(state_bytes: int) -> Iterator[float]:
    """Two square layers, as large as asked."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    width = max(math.isqrt(state_bytes // (2 * _BYTES_PER_NUMBER)), 16)
    model = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, width))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    while True:
        x = torch.randn(4, width)
        loss = ((model(x) - x) ** 2).mean()
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        yield loss.item()


def train_plainly(state_bytes: int) -> Iterator[float]:
    """Fit a line again and again; the memory does not compress."""
    generator = random.Random(0)
    memory = bytearray(os.urandom(1 << 20) * max(state_bytes >> 20, 1))
    weights = [0.0] * 256
    while True:
        for _ in range(50):
            x = [generator.gauss(0, 1) for _ in weights]
            error = sum(w * number for w, number in zip(weights, x, strict=True)) - sum(x)
            weights = [w - 1e-3 * error * number for w, number in zip(weights, x, strict=True)]
        start = generator.randrange(0, len(memory) - 4096)
        memory[start : start + 4096] = generator.randbytes(4096)
        yield error * error


def main() -> None:
    """Train, and say how it went."""
    parser = argparse.ArgumentParser(description="a training that measures itself")
    parser.add_argument("result", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("state_bytes", type=int)
    parser.add_argument("--plain", action="store_true")
    wanted = parser.parse_args()
    plain = wanted.plain or importlib.util.find_spec("torch") is None
    training = (train_plainly if plain else train_with_torch)(wanted.state_bytes)
    for _ in range(_WARM_UP):
        next(training)
    wanted.result.with_suffix(".began").touch()
    began_s = last_s = time.monotonic()
    steps, longest_s = 0, 0.0
    while last_s - began_s < wanted.seconds:
        loss = next(training)
        steps += 1
        print(f"step {steps} loss {loss!r}", flush=True)
        now_s = time.monotonic()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    wanted.result.write_text(json.dumps({"steps": steps, "seconds": last_s - began_s, "longest_s": longest_s}))


if __name__ == "__main__":
    main()
