"""The jobs of this machine that could be dumped, each with what stands in the way."""

from __future__ import annotations

import pwd
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated

from ckptctl.errors import CkptctlError
from ckptctl.host.gpu import GpuFacts
from ckptctl.preflight import tree as tree_checks
from ckptctl.preflight.finding import Finding, Level, blockers
from ckptctl.process import candidates
from ckptctl.process.candidates import Candidate
from ckptctl.process.identity import NoSuchProcess
from ckptctl.process.tree import Tree, glance
from ckptctl.snapshot import gpu
from ckptctl.snapshot.services import Services


@dataclass(frozen=True, slots=True)
class Job:
    """One line of `ckptctl ps`."""

    pid: Annotated[int, "the root of the tree"]
    user: Annotated[str, "the name of its user, or the number"]
    processes: Annotated[int, "how many the tree has"]
    memory_bytes: Annotated[int, "resident memory of the tree; what processes share counts in each"]
    gpu_bytes: Annotated[int | None, "device memory of the tree; null where the driver shows none"]
    age_s: Annotated[float, "how long the root has lived"]
    command: Annotated[tuple[str, ...], "the command line of the root"]
    ready: Annotated[bool, "whether nothing stands in the way of a dump"]
    blockers: Annotated[tuple[str, ...], "the names of the checks that stand in the way, the first one first"]
    reason: Annotated[str | None, "what the first of them says"]


def find_jobs(services: Services, *, everything: bool) -> tuple[Job, ...]:
    """Every job, by pid; with `everything` each leader of a process group. One look at /proc, one question to NVML."""
    facts = services.read_gpu_facts()
    processes = candidates.read_all()
    own = services.owner.pid
    pids = processes.leaders(own) if everything else processes.roots(_device_bytes(facts).keys(), own)
    found = (processes.candidate(pid) for pid in pids)
    jobs = (_job(one, facts, services) for one in found if one is not None)
    return tuple(job for job in jobs if job is not None)


def _job(candidate: Candidate, facts: GpuFacts, services: Services) -> Job | None:
    """None where it ended meanwhile."""
    try:
        tree = glance(candidate.members)
    except NoSuchProcess:
        return None
    on_devices = _device_bytes(facts)
    sizes = [on_devices[pid] for pid in tree.pids if pid in on_devices]
    found = _blockers(tree, facts, services)
    return Job(
        pid=candidate.id.pid,
        user=_user_name(candidate.user_id),
        processes=len(tree.processes),
        memory_bytes=sum(process.memory.resident_bytes for process in tree.processes),
        gpu_bytes=sum(sizes) if sizes else None,
        age_s=candidate.age_s,
        command=candidate.command,
        ready=not found,
        blockers=tuple(dict.fromkeys(finding.check for finding in found)),
        reason=found[0].summary if found else None,
    )


def _blockers(tree: Tree, facts: GpuFacts, services: Services) -> tuple[Finding, ...]:
    checked = tree_checks.findings(tree, services.machine)
    try:
        job = gpu.detect(tree, gpu.Use.DETECT, services.open_cuda, lambda: facts)
    except CkptctlError as error:
        return (Finding(gpu.DEVICE_CHECK, "gpu", Level.ERROR, error.message, error.hint), *blockers(checked))
    if job is not None:
        job.driver.close()
    return blockers(gpu.blockers(tree, job, checked))


def _device_bytes(facts: GpuFacts) -> dict[int, int]:
    """Device memory by pid, on all GPUs; 0 where NVML shows the process and not how much it has."""
    found: defaultdict[int, int] = defaultdict(int)
    for one in facts.gpus:
        for process in one.processes:
            found[process.pid] += process.used_bytes or 0
    return dict(found)


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)
