"""What is proven: each part writes rows of (what, value, proven or not or None)."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpu_proof import command_line
from gpu_proof.context import Context, criu, programs
from gpu_proof.raw import RawDriver
from gpu_proof.targets import Target, raw_program, start, training

LOCK_MS: Final = 30_000


@dataclass(frozen=True)
class Part:
    title: str
    run: Callable[[Context], None]
    limit_s: float


def run(name: str, work: Path, gib: Sequence[float]) -> int:
    """Run one part in this process; what it raises becomes a row."""
    context = Context(work, tuple(gib))
    try:
        PARTS[name].run(context)
    except Exception as error:
        context.row(f"{name} ended early", f"{type(error).__name__}: {error}", False)
    return 0


def facts(context: Context) -> None:
    from ckptctl.cuda.choice import choose
    from ckptctl.cuda.features import DriverVersion, Feature, supports
    from ckptctl.host.gpu import read_gpu_facts

    found = read_gpu_facts()
    context.row("system", f"Linux {platform.release()}, Python {platform.python_version()}")
    context.row("driver", found.driver or found.reason, found.driver is not None)
    for gpu in found.gpus:
        details = f"{gpu.model}, {gpu.total_bytes >> 20} MiB, {gpu.free_bytes >> 20} free, MIG {gpu.mig}, "
        mode = gpu.compute_mode.name if gpu.compute_mode is not None else None
        context.row(f"GPU {gpu.index}", f"{details}persistence {gpu.persistence}, mode {mode}, {gpu.uuid}")
    if found.driver:
        version = DriverVersion.parse(found.driver)
        for feature in Feature:
            context.row(feature.value, "yes" if supports(version, feature) else "no")
    choice = choose(os.environ["PATH"])
    context.row("way to the driver", choice.reason, choice.driver is not None)
    checked = subprocess.run([criu(), "check"], capture_output=True, text=True)
    context.row("criu check", (checked.stdout + checked.stderr).strip()[-200:], checked.returncode == 0)


def states(context: Context) -> None:
    """The state machine as the driver keeps it, on a PyTorch process where there is one."""
    for name, argv in programs(1_000_000):
        raw = RawDriver()
        target = start(argv, context.work / name)
        pid = target.pid
        if raw.restore_thread(pid).startswith("CUresult"):
            context.row(name, "does not use the GPU here (no PyTorch for CUDA?): skipped")
            target.kill()
            continue
        context.row(f"{name}: GPU devices while running", target.gpu_descriptors())
        wrong = {action: raw.act(action, pid)[0] for action in ("Checkpoint", "Restore", "Unlock")}
        context.row(f"{name}: refused while running", wrong, set(wrong.values()) == {401})
        context.row(f"{name}: state after that", raw.state(pid), raw.state(pid) == "running")
        for action, after in (("Lock", "locked"), ("Checkpoint", "checkpointed")):
            result, seconds = raw.act(action, pid)
            state = raw.state(pid)
            context.row(f"{name}: {action}", f"{state}, {seconds:.3f} s, CUresult {result}", state == after)
        context.row(f"{name}: GPU devices while checkpointed", target.gpu_descriptors())
        result, _ = raw.act("Restore", pid)
        context.row(f"{name}: Restore without cuInit", f"CUresult {result}, {raw.state(pid)}")
        if result:
            context.row(f"{name}: cuInit", f"{raw.initialize()[1]:.3f} s")
            result, seconds = raw.act("Restore", pid)
            context.row(f"{name}: Restore", f"{raw.state(pid)}, {seconds:.3f} s", raw.state(pid) == "locked")
        result, _ = raw.act("Unlock", pid)
        context.row(f"{name}: Unlock", f"CUresult {result}, {raw.state(pid)}", target.goes_on())
        target.kill()


def stopped(context: Context) -> None:
    """What the driver does with a process that is stopped; each call may hang, so each has a process of its own."""
    target = start(raw_program(0.01), context.work / "target")
    os.kill(target.pid, signal.SIGSTOP)
    time.sleep(0.2)
    for name in ("GetRestoreThreadId", "GetState"):
        code = (
            f"import ctypes; v = ctypes.c_int(); c = ctypes.CDLL('libcuda.so.1'); "
            f"print(c.cuCheckpointProcess{name}({target.pid}, ctypes.byref(v)), v.value)"
        )
        try:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=5)
            context.row(f"{name} of a stopped process", f"answers {done.stdout.strip()}")
        except subprocess.TimeoutExpired:
            context.row(f"{name} of a stopped process", "no answer within 5 s")
    os.kill(target.pid, signal.SIGCONT)
    context.row("it goes on afterwards", "", target.goes_on())


def timings(context: Context) -> None:
    """The driver's own calls, for each amount of device memory, twice."""
    raw = RawDriver()
    context.row("cuInit", f"{raw.initialize()[1]:.3f} s")
    for gib in context.gib:
        target = start(raw_program(gib), context.work / f"{gib:g}")
        for turn in (1, 2):
            taken = {}
            for action in ("Lock", "Checkpoint", "Restore", "Unlock"):
                result, taken[action] = raw.act(action, target.pid)
                if result:
                    raise RuntimeError(f"{action} of {gib:g} GiB: CUresult {result}")
            rates = f"{gib / taken['Checkpoint']:.2f} and {gib / taken['Restore']:.2f} GiB/s"
            text = ", ".join(f"{action.lower()} {seconds:.3f} s" for action, seconds in taken.items())
            context.row(f"{gib:g} GiB, turn {turn}", f"{text}; {rates}; {target.rss_mib()} MiB resident after")
        context.row(f"{gib:g} GiB goes on", "", target.goes_on())
        target.kill()


def parallel(context: Context) -> None:
    """Whether two processes are checkpointed faster side by side than one after the other."""
    from ckptctl.cuda.choice import choose
    from ckptctl.cuda.operations import checkpoint_all, lock_all, restore_all, unlock_all

    driver = choose(os.environ["PATH"]).require()
    gib = sorted(context.gib)[len(context.gib) // 2] / 2
    targets = [start(raw_program(gib), context.work / str(number)) for number in (1, 2)]
    pids = [target.pid for target in targets]
    for workers in (1, 2):
        seconds = []
        lock_all(driver, pids, LOCK_MS)
        for act in (checkpoint_all, restore_all):
            began = time.monotonic()
            act(driver, pids, workers=workers)
            seconds.append(f"{time.monotonic() - began:.3f} s")
        unlock_all(driver, pids)
        context.row(f"2 of {gib:g} GiB, {workers} at a time", f"checkpoint {seconds[0]}, restore {seconds[1]}")
    context.row("both go on", "", all(target.goes_on() for target in targets))
    driver.close()


def images(context: Context) -> None:
    """Driver and CRIU together: dump, end, restore; the log must be what an undisturbed run writes."""
    from ckptctl.cuda.choice import choose

    driver = choose(os.environ["PATH"]).require()
    for name, argv in programs(250):
        undisturbed = start(argv, context.work / f"{name}-undisturbed")
        if driver.restore_thread(undisturbed.pid) is None:
            context.row(name, "does not use the GPU here: skipped")
            undisturbed.kill()
            continue
        folder = context.work / name
        target = start(argv, folder, first_lines=40)
        driver.lock(target.pid, LOCK_MS)
        driver.checkpoint(target.pid)
        context.row(f"{name}: GPU devices left", target.gpu_descriptors())
        if _dump_and_restore(context, name, target, folder / "images"):
            driver.restore(target.pid)
            driver.unlock(target.pid)
            target.wait_lines(250, 60)
            undisturbed.wait_gone()
            same = target.lines() == undisturbed.lines()
            context.row(f"{name}: log equals that of an undisturbed run", f"{len(target.lines())} lines", same)
        target.kill()
        undisturbed.kill()
    driver.close()


def _dump_and_restore(context: Context, name: str, target: Target, folder: Path) -> bool:
    folder.mkdir()
    for action in ("dump", "restore"):
        options = ["--tree", str(target.pid)] if action == "dump" else ["--restore-detached"]
        empty = folder.parent / "no-plugins"
        empty.mkdir(exist_ok=True)
        log = folder.parent / f"{action}.log"
        began = time.monotonic()
        words = [criu(), action, "--images-dir", str(folder), "--log-file", str(log), "-v4", "--libdir", str(empty)]
        words += ["--file-locks", "--link-remap", "--ghost-limit", "200M", *options]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        seconds = time.monotonic() - began
        if done.returncode:
            errors = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line]
            context.row(f"{name}: criu {action}", " | ".join(errors[-3:]), False)
            return False
        size = sum(file.stat().st_size for file in folder.iterdir())
        context.row(f"{name}: criu {action}", f"{seconds:.2f} s, images {size / 2**20:.0f} MiB", True)
        if action == "dump":
            target.wait_gone()
    return True


def rollback(context: Context) -> None:
    """Back to running from every state, and when the process that carried out an operation is killed."""
    from ckptctl.cuda.choice import choose
    from ckptctl.cuda.operations import bring_to_running

    driver = choose(os.environ["PATH"]).require()
    gib = sorted(context.gib)[len(context.gib) // 2]
    target = start(raw_program(gib), context.work / "target")
    for name, actions in (("running", ()), ("locked", ("lock",)), ("checkpointed", ("lock", "checkpoint"))):
        for action in actions:
            driver.lock(target.pid, LOCK_MS) if action == "lock" else driver.checkpoint(target.pid)
        bring_to_running(driver, target.pid, limit_s=60)
        context.row(f"back from {name}", driver.state(target.pid).name.lower(), target.goes_on())
    driver.lock(target.pid, LOCK_MS)
    code = (
        "import os; from ckptctl.cuda.choice import choose; d = choose(os.environ['PATH']).require(); "
        f"print('ready', flush=True); d.checkpoint({target.pid})"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    caller.stdout.readline()
    time.sleep(0.3)
    under_way = caller.poll() is None
    caller.kill()
    bring_to_running(driver, target.pid, limit_s=60)
    context.row(
        f"ckptctl killed in a checkpoint (under way: {under_way})",
        driver.state(target.pid).name.lower(),
        target.goes_on(),
    )
    driver.close()


def killed_call(context: Context) -> None:
    """What becomes of a process when the very caller of the driver is killed: why ckptctl never does that."""
    raw = RawDriver()
    gib = sorted(context.gib)[len(context.gib) // 2]
    target = start(raw_program(gib), context.work / "target")
    raw.act("Lock", target.pid)
    child = os.fork()
    if child == 0:
        RawDriver().act("Checkpoint", target.pid)
        os._exit(0)
    time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: _watch(raw, target.pid, seen), daemon=True)
    thread.start()
    thread.join(15)
    context.row("states after the caller was killed", " → ".join(seen) + (" (hangs)" if thread.is_alive() else ""))
    if not thread.is_alive():
        for action in ("Checkpoint", "Restore", "Unlock"):
            context.row(f"then {action}", f"CUresult {raw.act(action, target.pid)[0]}, {raw.state(target.pid)}")
        context.row("goes on", target.goes_on())


def _watch(raw: RawDriver, pid: int, seen: list[str]) -> None:
    for _ in range(40):
        state = raw.state(pid)
        if not seen or seen[-1] != state:
            seen.append(state)
        time.sleep(0.2)


def workers(context: Context) -> None:
    """A forked DataLoader worker keeps GPU devices open: what CRIU says to that."""
    from ckptctl.cuda.choice import choose

    argv = training(1_000_000, 1)
    if argv is None:
        context.row("workers", "no training program in the kit: skipped")
        return
    driver = choose(os.environ["PATH"]).require()
    target = start(argv, context.work / "target")
    children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
    for child in children:
        held = f"{target.gpu_descriptors(int(child))}; restore thread {driver.restore_thread(int(child))}"
        context.row(f"GPU devices of worker {child}", held)
    if driver.restore_thread(target.pid) is None:
        context.row("workers", "does not use the GPU here: skipped")
        return
    driver.lock(target.pid, LOCK_MS)
    driver.checkpoint(target.pid)
    folder = context.work / "target" / "images"
    folder.mkdir()
    log = folder / "dump.log"
    words = [criu(), "dump", "--images-dir", str(folder), "--log-file", str(log), "-v4", "--tree", str(target.pid)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
    errors = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line]
    context.row(f"criu dump (status {done.returncode})", " | ".join(errors[:2]))
    driver.close()


PARTS: Final[dict[str, Part]] = {
    "facts": Part("The machine", facts, 60),
    "states": Part("States", states, 90),
    "timings": Part("The driver's own calls", timings, 120),
    "images": Part("Dump and restore with the driver and CRIU", images, 120),
    "command_line": Part("ckptctl", command_line.round_trip, 150),
    "given_up": Part("Dumps that are given up", command_line.given_up, 90),
    "rollback": Part("Back to running", rollback, 60),
    "sizes": Part("Dump and restore against the bytes", command_line.sizes, 300),
    "workers": Part("Forked DataLoader workers", workers, 60),
    "parallel": Part("Several processes at once", parallel, 60),
    "stopped": Part("A stopped process", stopped, 30),
    "killed_call": Part("A killed caller", killed_call, 60),
}
