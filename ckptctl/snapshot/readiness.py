"""Could this job be dumped, would this snapshot be restored: the answers of a dump and a restore, without the acts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from ckptctl.criu import choice
from ckptctl.criu.options import Option
from ckptctl.criu.program import Criu
from ckptctl.cuda.gpu_map import Wish
from ckptctl.errors import CkptctlError
from ckptctl.preflight import essentials
from ckptctl.preflight import gpu as gpu_gate
from ckptctl.preflight import restore as gate
from ckptctl.preflight import tree as tree_checks
from ckptctl.preflight.asked import Asked, NothingHeard, within
from ckptctl.preflight.described import Described
from ckptctl.preflight.finding import Finding, Level, blockers
from ckptctl.preflight.unknown import Unknown
from ckptctl.process import control
from ckptctl.process.tree import Tree, read_tree
from ckptctl.snapshot import gpu, gpu_cautions, ids, kept, rollback, space
from ckptctl.snapshot.estimate import Estimate, earlier_dumps, estimate
from ckptctl.snapshot.services import Services
from ckptctl.store import integrity
from ckptctl.store.layout import SnapshotFolder, Store
from ckptctl.store.manifest import Manifest

_NAMED_MOST: Final = 5

# What a dump or a restore refuses without a check in a table of its own.
OWN_TREE: Final = Described(
    "own-tree",
    "processes",
    "A ckptctl that dumps the tree in which it runs would freeze itself.",
    "Run ckptctl outside the job: from another shell, from cron, or with setsid --fork.",
)
SPACE: Final = Described(
    "space",
    "store",
    "A snapshot for which there is no room is given up half-way, after the job stood still for it.",
    space.REMEDY,
)
GPU_INTERFACE: Final = Described(
    "gpu-interface",
    "gpu",
    "Device memory is saved and restored by NVIDIA's driver, 570 or newer.",
    "Install NVIDIA's driver 570 or newer and ckptctl with its extra [cuda] (cuda-bindings), or NVIDIA's"
    " cuda-checkpoint utility.",
)
HOST_MEMORY: Final = Described(
    "host-memory",
    "gpu",
    "Device memory passes through host memory: without room for it the job would be killed.",
    "Free host memory, or shrink the job's cache on the device (torch.cuda.empty_cache) before the dump.",
)
PIDS: Final = Described(
    "pids",
    "snapshot",
    "A restored process gets the process and thread ids that it had.",
    ids.REMEDY,
)
DAMAGE: Final = Described(
    "damage",
    "snapshot",
    "A damaged snapshot cannot be restored.",
    "Restore another one: `ckptctl list` shows what there is, `backup` is the one before the latest.",
)
# Those whose sentences all come from elsewhere: `snapshot.gpu`, `snapshot.rollback`, `snapshot.kept`.
_ELSEWHERE: Final = (
    Described(
        "gpu-inherited",
        "gpu",
        "A process that inherited the GPU's devices without using CUDA keeps them: criu could not save it.",
        "Use driver 590 or newer and start the job by `cuda-checkpoint --launch-job`; or let workers start by spawn or"
        " forkserver; or use num_workers=0.",
    ),
    Described(
        "file-missing",
        "files",
        "A file that the job had open is opened again by its path.",
        "Put it back; it must exist under that path.",
    ),
    Described(
        "file-replaced",
        "files",
        "What was a regular file must be one again.",
        "Put the file back that was there at the dump.",
    ),
    Described(
        "file-shrunk",
        "files",
        "A file that is shorter than at the dump has lost what the job wrote.",
        "Put back the file of the dump, or accept what is there with --files keep.",
    ),
    Described(
        "file-grown",
        "files",
        "A file that has grown holds lines that the job will write again.",
        "Let it be put back, with the rest kept aside: --files roll-back; or leave it: --files keep.",
    ),
    Described(
        "file-kept",
        "files",
        "A file that is kept as it is may hold lines twice.",
        "Leave out --files keep.",
    ),
    Described(
        "file-in-use",
        "files",
        "A file that somebody else writes to or has open is not put back under their hands.",
        "End that process first; or stop it (kill -STOP) and leave the file alone: --files keep.",
    ),
    Described(
        "file-not-in-memory",
        "files",
        "A file that was in memory (tmpfs) at the dump is put back into memory only.",
        "Mount a tmpfs there.",
    ),
)
DESCRIBED: Final = (OWN_TREE, SPACE, GPU_INTERFACE, HOST_MEMORY, PIDS, DAMAGE, *_ELSEWHERE)


@dataclass(frozen=True, slots=True)
class GpuUser:
    """A process of the job that holds GPU memory."""

    pid: Annotated[int, "the process"]
    name: Annotated[str, "its short name"]
    size_bytes: Annotated[int | None, "device memory on all GPUs; null where the driver does not tell"]


@dataclass(frozen=True, slots=True)
class JobAnswer:
    """What would become of a dump of this job."""

    pid: Annotated[int, "the root of the tree"]
    name: Annotated[str, "its short name"]
    processes: Annotated[int, "how many the tree has"]
    threads: Annotated[int, "how many threads they have"]
    findings: Annotated[tuple[Finding, ...], "what every check says"]
    gpu: Annotated[tuple[GpuUser, ...], "who holds GPU memory"]
    options: Annotated[tuple[Option, ...], "what criu would be given, and why"]
    estimate: Annotated[Estimate, "what the dump would take"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the snapshot would go: the folder of the store, which need not be there yet; `open` gives None then."""

    folder: Path
    open: Callable[[], Store | None]


def of_job(pid: int, target: Target, services: Services, limit_s: float) -> JobAnswer:
    """Judge a job as a dump would. Nothing is touched: the GPU's driver is asked, and nothing is locked.

    Each thing that may hang has `limit_s`; those of `services` have limits of their own. Raises NoSuchProcess,
    NothingHeard where /proc does not tell of the job, StoreUnsafe.
    """
    tree = within(limit_s, f"the processes of the job {pid}", lambda: read_tree(pid))
    job, trouble = _gpu_job(tree, services)
    device_bytes = job.total_bytes if job else 0
    checked = tree_checks.findings(tree, services.machine)
    if trouble:  # then that is what stands in the way, not the devices
        checked = tuple(one for one in checked if one.check != gpu.DEVICE_CHECK)
    store = _Store(target, space.needed_bytes(tree, device_bytes), limit_s)
    try:
        found = (
            *_own_tree(tree, services),
            *gpu.blockers(tree, job, checked),
            *trouble,
            *gpu_cautions.findings(tree, job),
            *_host_memory(tree, job, services),
            store.finding,
            *_criu_on_its_own(services),
        )
    finally:
        if job is not None:
            job.driver.close()
    return JobAnswer(
        pid=tree.root.pid,
        name=tree.root.name,
        processes=len(tree.processes),
        threads=len(tree.thread_ids),
        findings=found,
        gpu=_gpu_users(tree, job),
        options=choice.choose_options(tree, services.machine).chosen,
        estimate=estimate(tree.estimated_bytes, device_bytes, store.earlier, services.machine.hostname),
    )


@dataclass(frozen=True, slots=True)
class RestoreQuestion:
    """A snapshot and the manner of its restore; see snapshot.restore.RestoreRequest."""

    folder: SnapshotFolder
    manifest: Manifest
    files: rollback.Mode = rollback.Mode.ROLL_BACK
    new_pid_namespace: bool = False
    gpu_map: tuple[Wish, ...] = ()


def of_snapshot(question: RestoreQuestion, services: Services) -> tuple[Finding, ...]:
    """Judge a snapshot as a restore would, but for reading every byte of it. Nothing is touched."""
    manifest, folder = question.manifest, question.folder
    criu, found_criu = _criu(services, restoring=True)
    version = found_criu.version if found_criu else None
    aside = folder.beside("tails")
    return (
        *_damage(folder),
        *criu,
        *gate.findings(gate.Circumstances(manifest, services.machine, version)),
        *(() if question.new_pid_namespace else _pids(manifest)),
        *rollback.plan(manifest, question.files, aside).findings,
        *kept.findings(kept.plan(manifest.kept_files, folder, aside)),
        *_gpu_of_snapshot(question, services),
    )


def _own_tree(tree: Tree, services: Services) -> Iterator[Finding]:
    if services.owner.pid in tree.pids:
        yield OWN_TREE.error(f"Process {tree.root.label} is a parent of this ckptctl.")


def _gpu_job(tree: Tree, services: Services) -> tuple[gpu.GpuJob | None, tuple[Finding, ...]]:
    """The job's GPU state, or what stands in the way of asking for it."""
    try:
        return gpu.detect(tree, gpu.Use.DETECT, services.open_cuda, services.read_gpu_facts), ()
    except CkptctlError as error:
        return None, (GPU_INTERFACE.error(error.message, error.hint),)


def _host_memory(tree: Tree, job: gpu.GpuJob | None, services: Services) -> Iterator[Finding]:
    if job is None:
        return
    try:
        gpu.require_host_memory(job, tree, services.machine.memory_available_bytes)
    except gpu.NoHostMemory as error:
        yield HOST_MEMORY.error(error.message, error.hint)
        return
    if job.unseen:
        yield HOST_MEMORY.warning(job.unseen)
    else:
        yield HOST_MEMORY.ok("Host memory has room for what is on the GPUs.")


class _Store:
    """What is asked of the store's file system, which may be a server that is dead."""

    def __init__(self, target: Target, wanted_bytes: int, limit_s: float) -> None:
        self.earlier: list[Manifest] = []
        deadline = time.monotonic() + limit_s
        shortage = Asked(str(target.folder), lambda: space.shortage(target.folder, wanted_bytes)).answer(deadline)
        if isinstance(shortage, Unknown):
            remedy = "See whether the folder can be listed; mount its file system again."
            self.finding = SPACE.error(shortage.reason, remedy)
            return
        self.finding = SPACE.error(shortage) if shortage else SPACE.ok(f"{target.folder} has room for the snapshot.")
        with suppress(NothingHeard):  # then nothing is estimated
            self.earlier = Asked("earlier dumps", lambda: earlier_dumps(target.open())).require(deadline)


def _criu_on_its_own(services: Services) -> tuple[Finding, ...]:
    """Of criu alone: whether this user may dump the job is a check of the job."""
    return tuple(one for one in _criu(services, restoring=False)[0] if one.group == "criu")


def _criu(services: Services, *, restoring: bool) -> tuple[tuple[Finding, ...], Criu | None]:
    """What stands in the way of every dump or every restore here, and the criu where it can be used."""
    try:
        found = services.find_criu()
    except CkptctlError as error:
        return (Finding("criu", "criu", Level.ERROR, error.message, error.hint),), None
    return essentials.findings(services.machine, found, services.now(), restoring=restoring), found


def _gpu_users(tree: Tree, job: gpu.GpuJob | None) -> tuple[GpuUser, ...]:
    if job is None:
        return ()
    seen = {pid for pid, _, _ in job.device_bytes}
    sizes = job.bytes_by_pid
    return tuple(
        GpuUser(process.pid, process.name, sizes[process.pid] if process.pid in seen else None)
        for process in tree.processes
        if process.pid in job.pids
    )


def _damage(folder: SnapshotFolder) -> Iterator[Finding]:
    found = integrity.verify_structure(folder)
    fatal = [str(damage) for damage in found if damage.fatal]
    exposed = [str(damage) for damage in found if not damage.fatal]
    if fatal:
        yield DAMAGE.error(f"The snapshot is damaged: {'; '.join(fatal[:_NAMED_MOST])}.")
    if exposed:
        yield DAMAGE.warning(f"{'; '.join(exposed[:_NAMED_MOST])}.", f"chmod -R go= {folder.path}")
    if not found:
        yield DAMAGE.ok("The files are there with their sizes; `ckptctl verify --read-data` reads every byte.")


def _pids(manifest: Manifest) -> Iterator[Finding]:
    taken = control.taken(ids.ids_of(manifest))
    if taken:
        yield PIDS.error(ids.in_use(taken))
    else:
        yield PIDS.ok("The process and thread ids of the job are free.")


def _gpu_of_snapshot(question: RestoreQuestion, services: Services) -> Iterator[Finding]:
    saved = question.manifest.gpu
    if saved is None:
        return
    plan = gpu_gate.plan(saved, services.read_gpu_facts(), question.gpu_map)
    yield from plan.findings
    if blockers(plan.findings):
        return
    choice = services.open_cuda()
    if choice.driver is None:
        yield GPU_INTERFACE.error(f"GPU memory cannot be restored on this machine: {choice.reason}")
        return
    choice.driver.close()
    placed = ", ".join(f"{one.index} → {plan.place(one.uuid)}" for one in saved.gpus if plan.pairs)
    yield GPU_INTERFACE.ok(f"The GPUs of the dump have their places here{f': {placed}' if placed else ''}.")
