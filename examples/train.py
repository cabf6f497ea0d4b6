"""A small, deterministic training job: one line per step, so that two runs can be compared byte by byte.

usage: train.py STEPS [--pause SECONDS] [--workers N] [--plain]

Prints step, epoch, the loss with every digit and the learning rate. Trains with PyTorch where it is installed, on the
GPU where there is one; else, or with --plain, a network written out in plain Python. Nothing in it knows of
checkpoints.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of training has to say."""

    epoch: int
    loss: float
    learning_rate: float


def train_with_torch(workers: int) -> Iterator[Step]:
    """Classify points with an MLP with dropout, AdamW and a cosine schedule; batches come from DataLoader workers."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    features = torch.randn(2048, 32)
    labels = (features.sum(1, keepdim=True) > 0).float()
    batches = DataLoader(
        TensorDataset(features, labels),
        batch_size=64,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 512), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(512, 1)
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    epoch = 0
    while True:
        for x, y in batches:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            yield Step(epoch, loss.item(), schedule.get_last_lr()[0])
        epoch += 1


@dataclass(slots=True)
class Weights:
    """Numbers to learn, with the gradient of the running step and the two moments that Adam keeps of each."""

    values: list[float]
    gradient: list[float]
    mean: list[float]
    square: list[float]

    @classmethod
    def random(cls, count: int, spread: float, generator: random.Random) -> Weights:
        """Numbers around zero, as far apart as `spread`."""
        return cls([generator.gauss(0, spread) for _ in range(count)], [0.0] * count, [0.0] * count, [0.0] * count)

    def adam(self, step: int, learning_rate: float) -> None:
        """One step of Adam down the gradient, which then begins at zero again."""
        for i, slope in enumerate(self.gradient):
            self.mean[i] += 0.1 * (slope - self.mean[i])
            self.square[i] += 0.001 * (slope * slope - self.square[i])
            mean = self.mean[i] / (1 - 0.9**step)
            square = self.square[i] / (1 - 0.999**step)
            self.values[i] -= learning_rate * mean / (math.sqrt(square) + 1e-8)
            self.gradient[i] = 0.0


class Network:
    """`inputs` numbers → `hidden` tanh units → one number, with the gradient of the squared error by hand."""

    def __init__(self, inputs: int, hidden: int, generator: random.Random) -> None:
        self.inputs, self.hidden = inputs, hidden
        self.first = Weights.random(hidden * (inputs + 1), 1 / math.sqrt(inputs), generator)
        self.second = Weights.random(hidden + 1, 1 / math.sqrt(hidden), generator)

    def learn(self, x: list[float], target: float, share: float) -> float:
        """The squared error at `x`; adds `share` of its gradient to those of the weights."""
        width = self.inputs + 1
        rows = [self.first.values[unit * width : (unit + 1) * width] for unit in range(self.hidden)]
        active = [math.tanh(row[-1] + sum(a * b for a, b in zip(row, x, strict=False))) for row in rows]
        out = self.second.values[-1] + sum(a * b for a, b in zip(self.second.values, active, strict=False))
        slope = 2 * (out - target) * share
        self.second.gradient[-1] += slope
        for unit, value in enumerate(active):
            self.second.gradient[unit] += slope * value
            back = slope * self.second.values[unit] * (1 - value * value)
            self.first.gradient[unit * width + self.inputs] += back
            for i, number in enumerate(x):
                self.first.gradient[unit * width + i] += back * number
        return (out - target) ** 2


def train_plainly() -> Iterator[Step]:
    """Learn a smooth function of four numbers by Adam, in shuffled batches of 16."""
    generator = random.Random(0)
    points = [[generator.gauss(0, 1) for _ in range(4)] for _ in range(512)]
    targets = [math.sin(x[0] + x[1]) + 0.5 * math.cos(x[2]) * x[3] for x in points]
    network = Network(4, 24, generator)
    step = epoch = 0
    while True:
        order = generator.sample(range(len(points)), len(points))
        for start in range(0, len(order), 16):
            batch = order[start : start + 16]
            learning_rate = 0.01 * (1 + math.cos(math.pi * min(step / 1000, 1))) / 2
            loss = sum(network.learn(points[i], targets[i], 1 / len(batch)) for i in batch) / len(batch)
            step += 1
            network.first.adam(step, learning_rate)
            network.second.adam(step, learning_rate)
            yield Step(epoch, loss, learning_rate)
        epoch += 1


def main() -> None:
    """Train for as many steps as asked, one line each."""
    parser = argparse.ArgumentParser(description="A small, deterministic training job.")
    parser.add_argument("steps", type=int)
    parser.add_argument("--pause", type=float, default=0.02, metavar="SECONDS", help="rest after every step")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="DataLoader worker processes (PyTorch)")
    parser.add_argument("--plain", action="store_true", help="train in plain Python even where PyTorch is installed")
    wanted = parser.parse_args()
    plain = wanted.plain or importlib.util.find_spec("torch") is None
    training = train_plainly() if plain else train_with_torch(wanted.workers)
    for number in range(wanted.steps):
        step = next(training)
        print(number + 1, step.epoch, repr(step.loss), step.learning_rate, flush=True)
        time.sleep(wanted.pause)


if __name__ == "__main__":
    main()
