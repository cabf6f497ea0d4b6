"""The parts that use ckptctl as its users do: through its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any, Final

from gpu_proof.context import Context, criu, programs
from gpu_proof.raw import RawDriver
from gpu_proof.targets import Target, raw_program, start

_CLI: Final = "from ckptctl.cli.main import console; console()"


def round_trip(context: Context) -> None:
    """Dump, end, restore, with a log like that of an undisturbed run; --leave-running; a dump that fails."""
    for name, argv in programs(250):
        undisturbed = start(argv, context.work / f"{name}-undisturbed")
        if RawDriver().restore_thread(undisturbed.pid).startswith("CUresult"):
            context.row(name, "does not use the GPU here (no PyTorch for CUDA?): skipped")
            undisturbed.kill()
            continue
        target = start(argv, context.work / name, first_lines=20)
        pid = str(target.pid)
        first, second = str(context.work / f"{name}-running"), str(context.work / f"{name}-ended")
        _step(
            context, f"{name}: dump --leave-running", "dump", "--pid", pid, "--cuda", "--leave-running", "--to", first
        )
        context.row(f"{name}: goes on meanwhile", "", target.goes_on())
        if _step(context, f"{name}: dump", "dump", "--pid", pid, "--cuda", "--to", second):
            target.wait_gone()
            _step(context, f"{name}: restore", "restore", second)
            target.wait_lines(250, 60)
            undisturbed.wait_gone()
            same = target.lines() == undisturbed.lines()
            context.row(f"{name}: log equals that of an undisturbed run", f"{len(target.lines())} lines", same)
        target.kill()
        undisturbed.kill()


def given_up(context: Context) -> None:
    """Back to running when criu fails, and when ckptctl is killed with the process locked, or checkpointed."""
    gib = sorted(context.gib)[len(context.gib) // 2]
    target = start(raw_program(gib), context.work / "target")
    broken = context.work / "broken-criu"
    broken.write_text(f'#!/bin/sh\n[ "$1" = dump ] && exit 1\nexec {criu()} "$@"\n')
    broken.chmod(0o755)
    done = _ckptctl(context, *_dump(context, target, "never"), CKPTCTL_CRIU=str(broken))
    context.row("criu fails", f"status {done.returncode}", done.returncode == 7 and target.goes_on())
    raw = RawDriver()
    for step, state in (("lock-gpu", "locked"), ("checkpoint-gpu", "checkpointed")):
        _kill_after(context, step, *_dump(context, target, f"killed-{state}"))
        found = raw.state(target.pid)
        done = _ckptctl(context, "recover")
        text = f"it was {found}; recover: status {done.returncode}, {raw.state(target.pid)}"
        context.row(f"ckptctl killed after {step}", text, found == state and done.returncode == 0 and target.goes_on())
    target.kill()


def sizes(context: Context) -> None:
    """Dump and restore for each amount of device memory: every phase, beside the driver's own calls alone."""
    raw = RawDriver()
    raw.initialize()
    for gib in context.gib:
        name = f"{gib:g} GiB"
        target = start(raw_program(gib), context.work / f"{gib:g}")
        alone = {
            action.lower(): raw.act(action, target.pid)[1] for action in ("Lock", "Checkpoint", "Restore", "Unlock")
        }
        folder = context.work / f"{gib:g}" / "snapshot"
        dumped = _report(context, f"{name}: dump", *_dump(context, target, str(folder)))
        if dumped is None:
            continue
        target.wait_gone()
        restored = _report(context, f"{name}: restore", "restore", str(folder))
        for one in [*dumped["gpu"]["timings"], *(restored["gpu_timings"] if restored else ())]:
            action, seconds = one["action"], one["seconds"]
            rate = f"{(one['bytes_per_second'] or 0) / 2**30:.2f} GiB/s; " if one["bytes_per_second"] else ""
            context.row(f"{name}: {action}", f"{seconds:.3f} s; {rate}the driver's call alone {alone[action]:.3f} s")
        context.row(f"{name}: phases of the dump", _phases(dumped))
        if restored:
            context.row(f"{name}: phases of the restore", _phases(restored), target.goes_on())
        target.kill()
        for file in folder.rglob("*.img"):
            file.unlink()


def _dump(context: Context, target: Target, folder: str) -> tuple[str, ...]:
    return ("dump", "--pid", str(target.pid), "--cuda", "--to", str(context.work / folder))


def _phases(report: dict[str, Any]) -> str:
    steps = ", ".join(f"{one['name']} {one['seconds']:.3f} s" for one in report["timings"])
    size = f"; images {report['image_bytes'] / 2**20:.0f} MiB" if "image_bytes" in report else ""
    return f"{steps}{size}"


def _report(context: Context, what: str, *words: str) -> dict[str, Any] | None:
    """The result of `ckptctl WORDS --json`, with a row on how it went; None where it failed."""
    began = time.monotonic()
    done = _ckptctl(context, *words, "--json")
    seconds = time.monotonic() - began
    document = json.loads(done.stdout) if done.stdout else {}
    said = "" if done.returncode == 0 else f": {done.stdout.strip()[-400:]}"
    context.row(what, f"{seconds:.2f} s in all, status {done.returncode}{said}", done.returncode == 0)
    result: dict[str, Any] | None = document.get("result") if done.returncode == 0 else None
    return result


def _step(context: Context, what: str, *words: str) -> bool:
    return _report(context, what, *words) is not None


def _kill_after(context: Context, step: str, *words: str) -> None:
    """Kill a ckptctl as soon as it says that a step is done."""
    argv = [sys.executable, "-c", _CLI, *words, "--json"]
    process = subprocess.Popen(argv, env=_environment(context), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line)
        if event.get("name") == step and "seconds" in event:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()


def _ckptctl(context: Context, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _CLI, *words],
        env={**_environment(context), **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def _environment(context: Context) -> dict[str, str]:
    own = {"CKPTCTL_STORE": str(context.work / "store"), "CKPTCTL_STATE": str(context.work / "state"), "COLUMNS": "200"}
    return {**os.environ, **own}
