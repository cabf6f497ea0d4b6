"""Checks of how Slurm will treat the job that we run in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ckptctl.preflight.check import Problem
from ckptctl.preflight.cluster_facts import SlurmFacts
from ckptctl.preflight.machine_check import MachineCheck, about, ok, skipped, warning
from ckptctl.preflight.survey import Facts
from ckptctl.preflight.unknown import Unknown

_GROUP: Final = "cluster"
_DEFAULT_SIGNAL_S: Final = 60  # sbatch(1), --signal
# What the reference dump of a job without GPU and its commit take, with the minute that Slurm may be early.
_SHORT_S: Final = 120


def of_slurm(facts: Facts) -> SlurmFacts | Unknown:
    """The facts about Slurm; where there is none, that is why nothing is known."""
    return facts.slurm if facts.slurm is not None else Unknown("There is no Slurm here.")


def of_job(facts: Facts) -> SlurmFacts | Unknown:
    """The same, where we run within a job that Slurm tells about."""
    slurm = of_slurm(facts)
    if isinstance(slurm, Unknown):
        return slurm
    if slurm.job_id is None:
        return Unknown("This is no job of Slurm.")
    return slurm if slurm.job else Unknown(f"Slurm says nothing about job {slurm.job_id}.")


def _slurm(facts: SlurmFacts) -> Iterator[Problem]:
    data = {"job": facts.job_id, "scontrol": facts.scontrol, "partition": facts.job.get("Partition")}
    version = facts.config.get("SLURM_VERSION", "")
    if facts.silence:
        yield warning(f"Slurm cannot be asked: {facts.silence}.", **data)
    elif facts.job_id is None:
        yield ok(f"Slurm {version} is here; this is no job of it.", **data)
    else:
        end = facts.job.get("EndTime", "unknown")
        yield ok(f"This is job {facts.job_id} of Slurm {version}, which ends at {end}.", **data, ends=end)


def _requeue(facts: SlurmFacts) -> Iterator[Problem]:
    allowed, restarts = facts.job.get("Requeue"), facts.job.get("Restarts", "0")
    if allowed == "0":
        yield warning(f"Job {facts.job_id} is not put back into the queue when it is preempted.", requeue=allowed)
    elif allowed is None:
        yield skipped("Slurm does not say whether the job may be requeued.")
    else:
        yield ok(f"The job may be requeued; it was {restarts} times.", requeue=allowed, restarts=restarts)


def _signal(facts: SlurmFacts) -> Iterator[Problem]:
    if facts.signal is None:
        kill = seconds_of(facts.config.get("KillWait", ""))
        within = f" and SIGKILL {kill} s later" if kill is not None else ""
        yield warning(f"No signal announces the end of the job's time; SIGTERM comes then{within}.", kill_wait_s=kill)
        return
    name, _, before = facts.signal.partition("@")
    seconds = int(before) if before.isdigit() else _DEFAULT_SIGNAL_S
    data = {"signal": facts.signal, "seconds": seconds}
    if seconds < _SHORT_S:
        yield warning(f"{name.rpartition(':')[2]} comes only {seconds} s before the end of the job's time.", **data)
    else:
        yield ok(f"{name.rpartition(':')[2]} comes {seconds} s before the end of the job's time.", **data)


def _preemption(facts: SlurmFacts) -> Iterator[Problem]:
    mode = facts.partition.get("PreemptMode") or facts.config.get("PreemptMode", "")
    if facts.config.get("PreemptType", "preempt/none") in ("preempt/none", "(null)") or mode in ("", "OFF"):
        yield ok("Slurm preempts no job of this partition.", preempt_mode=mode or None)
        return
    grace = seconds_of(facts.partition.get("GraceTime", "")) or 0
    data = {"preempt_mode": mode, "grace_s": grace}
    if grace < _SHORT_S:
        yield warning(f"A preempted job ({mode}) has {grace} s of grace, too short for most dumps.", **data)
    else:
        yield ok(f"A preempted job ({mode}) has {grace} s of grace.", **data)


def seconds_of(text: str) -> int | None:
    """`30 sec`, `120` or `00:02:00` (also with days, `1-00:00:00`); None for anything else."""
    plain = re.fullmatch(r"(\d+)(?: sec)?", text.strip())
    if plain:
        return int(plain[1])
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text.strip())
    if clock is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


CHECKS: Final = (
    MachineCheck(
        "slurm",
        _GROUP,
        "What Slurm does at the end of a job's time and at preemption decides when a snapshot must be there.",
        "Try scontrol show config.",
        about(of_slurm, _slurm),
    ),
    MachineCheck(
        "slurm-requeue",
        _GROUP,
        "A requeued job starts its script again, which can go on from the snapshot.",
        "Submit it with --requeue, or now: scontrol update JobId=$SLURM_JOB_ID Requeue=1",
        about(of_job, _requeue),
    ),
    MachineCheck(
        "slurm-signal",
        _GROUP,
        "A signal some minutes before the end of the job's time leaves time for a last snapshot.",
        "Submit the job with --signal=B:USR1@300.",
        about(of_job, _signal),
    ),
    MachineCheck(
        "slurm-preemption",
        _GROUP,
        "From SIGTERM to SIGKILL a preempted job has the partition's GraceTime.",
        "Take snapshots on a schedule, so that the last one is never far.",
        about(of_job, _preemption),
    ),
)
