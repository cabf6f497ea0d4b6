"""A training run on the fake GPU: updates its device memory every step and prints what a digest of it is.

usage: train.py STEPS [--bytes N] [--gpu INDEX] [--pause SECONDS] [--fork-worker | --spawn-worker] [--managed]
                [--cpu-parent COUNT]

Two runs with the same arguments print the same lines. With --fork-worker a child is forked once CUDA is in use, as a
DataLoader does; with --spawn-worker it is started anew. With --cpu-parent COUNT the program itself stays off the GPU
and COUNT children use it, each of which writes its lines to a file `child-N` in the working folder.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import time
import zlib
from typing import TextIO


def check(result: int) -> None:
    if result:
        sys.exit(f"CUDA error {result}")


def train(options: argparse.Namespace, gpu: int, out: TextIO) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    check(cuda.cuInit(0))
    context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), gpu))
    check(cuda.cuCtxSetCurrent(context))
    size = ctypes.c_size_t(options.bytes)
    if options.managed:
        check(cuda.cuMemAllocManaged(ctypes.byref(pointer), size, 1))
    else:
        check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), size))
    host = ctypes.create_string_buffer(options.bytes)
    check(cuda.cuMemcpyHtoD_v2(pointer, host, size))
    parent = os.getpid()
    if options.fork_worker and os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)
    if options.spawn_worker:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
    for step in range(1, options.steps + 1):
        check(cuda.fakegpuStep(pointer, size, gpu * 1000 + step))
        check(cuda.cuMemcpyDtoH_v2(host, pointer, size))
        print(step, f"{zlib.crc32(host.raw):08x}", file=out, flush=True)
        time.sleep(options.pause)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", type=int)
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.01)
    parser.add_argument("--fork-worker", action="store_true")
    parser.add_argument("--spawn-worker", action="store_true")
    parser.add_argument("--managed", action="store_true")
    parser.add_argument("--cpu-parent", type=int, default=0)
    options = parser.parse_args()
    children = []
    for number in range(options.cpu_parent):
        pid = os.fork()
        if pid == 0:
            with open(f"child-{number}", "w") as out:
                train(options, number % max(1, options.gpu + 1), out)
            os._exit(0)
        children.append(pid)
    if not children:
        train(options, options.gpu, sys.stdout)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
