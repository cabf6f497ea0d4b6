"""Data-parallel training over gloo; rank 0 prints one line per step, so that two runs can be compared byte by byte.

usage: python without_io_uring.py torchrun --standalone --nproc_per_node=2 ddp.py STEPS

Needs PyTorch. Without the first two words torchrun's rendezvous (libuv) holds an io_uring, which CRIU cannot dump.
"""

import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.set_num_threads(1)
torch.manual_seed(rank)
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1)))
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

for step in range(int(sys.argv[1])):
    x = torch.randn(64, 64)
    loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    dist.all_reduce(loss)
    if rank == 0:
        print(step, repr(loss.item()), flush=True)
    time.sleep(0.03)

dist.destroy_process_group()
