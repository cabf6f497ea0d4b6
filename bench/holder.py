"""A process that holds memory of some kind, and notes the time every millisecond.

usage: holder.py CONTENTS BYTES

CONTENTS: `floats`, normally distributed float32; `zeros`, half of it zeros, half floats, a MiB of each in turn;
`training`, a language model in training with its gradients and the moments of AdamW; `frozen`, the same of a model of
which only a tenth of the layers is trained. The last two need PyTorch.

Prints "ready ADDRESS" when the memory is filled. At that address of its memory lie 64-bit numbers: how many times are
written, then the times (CLOCK_MONOTONIC, ns). The largest distance between two of them is how long it stood still.
They are in private memory because a file, or shared memory with a name, would be one more thing to save.
On SIGUSR1 it trains ten steps more, where it trains, and prints "trained".
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable

SLOTS = 2_000_000  # more than half an hour
_CHUNK = 1 << 20
_STEPS = 10
_VOCABULARY = 32  # tokens for each number of a layer's width
_LAYERS = 20
_FROZEN_LAYERS = 18
_TOKENS = 64
_BYTES_PER_NUMBER = 4


def floats(size_bytes: int, zeros_too: bool) -> mmap.mmap:
    """Normally distributed numbers: signs and exponents come again every 4 MiB, the bits of the mantissas do not."""
    generator = random.Random(0)
    count = _CHUNK // _BYTES_PER_NUMBER
    patterns = [
        int.from_bytes(struct.pack(f"<{count}f", *(generator.gauss(0, 1) for _ in range(count))), "little")
        for _ in range(min(4, -(-size_bytes // _CHUNK)))
    ]
    mantissas = int.from_bytes(b"\xff\xff\x7f\x00" * count, "little")
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for number, start in enumerate(range(0, size_bytes, _CHUNK)):
        piece = patterns[number % len(patterns)] ^ (int.from_bytes(os.urandom(_CHUNK), "little") & mantissas)
        data = bytes(_CHUNK) if zeros_too and number % 2 else piece.to_bytes(_CHUNK, "little")
        memory[start : start + _CHUNK] = data[: size_bytes - start]
    return memory


def model_width(state_bytes: int, trained_layers: int) -> int:
    """How wide layers are so that the state takes so much: four numbers for a parameter that is trained, else one."""
    everything = 12 * _LAYERS + 2 * _VOCABULARY
    trained = everything if trained_layers == _LAYERS else 12 * trained_layers
    numbers = 3 * trained + everything
    return max(round(math.sqrt(state_bytes / _BYTES_PER_NUMBER / numbers)) // 8 * 8, 8)


def training(state_bytes: int, frozen_layers: int) -> Callable[[], None]:
    """A language model that is trained with AdamW on random tokens; what is returned trains it by ten steps."""
    import torch

    torch.manual_seed(0)
    # Two that share processors with anything else wait for each other most of the time.
    torch.set_num_threads(1)
    width = model_width(state_bytes, _LAYERS - frozen_layers)
    tokens = _VOCABULARY * width
    embedding = torch.nn.Embedding(tokens, width)
    layers = [
        torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        for _ in range(_LAYERS)
    ]
    model = torch.nn.Sequential(embedding, *layers, torch.nn.Linear(width, tokens, bias=False))
    for layer in [embedding, *layers[:frozen_layers], model[-1]] if frozen_layers else ():
        layer.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1e-4)

    def train() -> None:
        for _ in range(_STEPS):
            # As in a language, few tokens come often and many hardly ever.
            text = (tokens ** torch.rand(1, _TOKENS + 1)).long() - 1
            loss = torch.nn.functional.cross_entropy(model(text[:, :-1])[0], text[0, 1:])
            optimizer.zero_grad(set_to_none=False)
            torch.autograd.backward(loss)
            optimizer.step()

    train()
    return train


def main() -> None:
    """Fill the memory, then beat for ever."""
    contents, size_bytes = sys.argv[1], int(sys.argv[2])
    held: object = None
    train: Callable[[], None] | None = None
    if contents in ("training", "frozen"):
        train = training(size_bytes, _FROZEN_LAYERS if contents == "frozen" else 0)
    else:
        held = floats(size_bytes, contents == "zeros")
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: asked.append(number))
    beats = (ctypes.c_uint64 * (SLOTS + 1))()
    print("ready", ctypes.addressof(beats), flush=True)
    for count in range(1, SLOTS + 1):
        beats[count] = time.monotonic_ns()
        beats[0] = count
        if asked:
            asked.clear()
            if train is not None:
                train()
            print("trained", flush=True)
        time.sleep(0.001)
    del held


if __name__ == "__main__":
    main()
