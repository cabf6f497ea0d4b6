"""How Slurm will treat the job that we run in: asked by commands that only show, with limits."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ckptctl import command
from ckptctl.errors import CkptctlError

_SIGNAL: Final = re.compile(r"--signal[= ](\S+)")
_FIELD: Final = re.compile(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)")
_SCRIPT_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class SlurmFacts:
    """`job`, `partition` and `config` are what `scontrol show` says of each, by its names; empty where it was not
    asked, and `silence` says why where it failed. `job_id` is None outside a job.

    `signal` is the value of sbatch's --signal (`B:USR1@300`), None where it was not given or cannot be seen.
    """

    job_id: str | None
    scontrol: str | None
    job: Mapping[str, str]
    partition: Mapping[str, str]
    config: Mapping[str, str]
    signal: str | None
    silence: str | None = None


def read_slurm(environment: Mapping[str, str], limit_s: float) -> SlurmFacts | None:
    """Ask Slurm, None where there is none. Reads only."""
    job_id = environment.get("SLURM_JOB_ID")
    scontrol = shutil.which("scontrol", path=environment.get("PATH"))
    if job_id is None and scontrol is None:
        return None
    if scontrol is None:
        return SlurmFacts(job_id, None, {}, {}, {}, None, "the program scontrol is not here")
    try:
        return _asked(scontrol, job_id, environment, limit_s / 3)
    except CkptctlError as error:
        return SlurmFacts(job_id, scontrol, {}, {}, {}, None, error.message.rstrip("."))


def _asked(scontrol: str, job_id: str | None, environment: Mapping[str, str], limit_s: float) -> SlurmFacts:
    config = command.run((scontrol, "show", "config"), timeout_s=limit_s).stdout
    job_line = partition = ""
    if job_id is not None:
        job_line = command.run((scontrol, "show", "job", "-o", job_id), timeout_s=limit_s).stdout
        name = fields(job_line).get("Partition", environment.get("SLURM_JOB_PARTITION", ""))
        partition = command.run((scontrol, "show", "partition", "-o", name), timeout_s=limit_s).stdout if name else ""
    job = fields(job_line)
    return SlurmFacts(
        job_id=job_id,
        scontrol=scontrol,
        job=job,
        partition=fields(partition),
        config=config_fields(config),
        signal=_signal(job_line, job.get("Command", ""), environment),
    )


def fields(line: str) -> dict[str, str]:
    """`JobId=7 Requeue=1 ...`, as `scontrol show -o` writes it; a value ends at the first blank."""
    return dict(_FIELD.findall(line))


def config_fields(text: str) -> dict[str, str]:
    """`KillWait                = 30 sec`, a line each."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _signal(job_line: str, script: str, environment: Mapping[str, str]) -> str | None:
    """Slurm does not show it: it is on the command line of sbatch, in the script or in the environment (sbatch(1))."""
    said = job_line.partition("SubmitLine=")[2]
    for text in (said, _directives(Path(script))):
        found = _SIGNAL.search(text)
        if found:
            return found[1]
    return environment.get("SBATCH_SIGNAL")


def _directives(script: Path) -> str:
    try:
        with open(script, "rb") as file:
            text = file.read(_SCRIPT_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines() if line.startswith("#SBATCH"))
