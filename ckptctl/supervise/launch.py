"""Starting a job so that it can be dumped."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from io import RawIOBase
from pathlib import Path
from typing import Final

from ckptctl import command, files
from ckptctl.cuda.driver import JOB_FILE
from ckptctl.cuda.features import DriverVersion, Feature, supports
from ckptctl.cuda.utility import PROGRAM as CUDA_PROGRAM
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.host.gpu import GpuFacts
from ckptctl.process.identity import ProcessId, identify
from ckptctl.store.layout import RunFolder
from ckptctl.supervise import seccomp
from ckptctl.supervise.exits import Watch

STATUS_VARIABLE: Final = "CKPTCTL_STATUS"
RUN_VARIABLE: Final = "CKPTCTL_RUN"
_KEEPER: Final = Path(__file__).with_name("keeper.py")
# What the dynamic loader is told for the job, to preload a library say, would else end up in the keeper too.
_LOADER_PREFIX: Final = "LD_"
_OWN_DESCRIPTORS: Final = "/proc/self/fd/"
_CUDA_LAUNCH: Final = "--launch-job"
_LINGER_S: Final = 5.0


class ProgramNotFound(CkptctlError):
    """The job's program does not exist, or the interpreter that it names."""

    code = "E_PROGRAM_NOT_FOUND"
    exit_status = ExitStatus.NOT_FOUND


class ProgramNotExecutable(CkptctlError):
    """The job's program exists but cannot be executed."""

    code = "E_PROGRAM_NOT_EXECUTABLE"
    exit_status = ExitStatus.NOT_EXECUTABLE


class KeeperFailed(CkptctlError):
    """The keeper of the job ended before the job was started."""

    code = "E_KEEPER"


@dataclass(frozen=True, slots=True)
class Launch:
    """A job to be started: `command` is looked up in the PATH of `environment`, which is all that it gets.

    `cuda_launcher` is NVIDIA's utility where the job is to have a job file (see `cuda_launcher`); one that the
    environment names already is kept. `linger_s`: how long what the job leaves behind may run on; as long again after
    SIGTERM, then SIGKILL.
    """

    command: tuple[str, ...]
    run: RunFolder
    environment: Mapping[str, str]
    cwd: Path
    umask: int = 0o022
    allow_io_uring: bool = False
    cuda_launcher: Path | None = None
    linger_s: float = _LINGER_S


@dataclass(frozen=True, slots=True)
class Launched:
    """A job that was started: `keeper` is the root of the tree to dump, `watch` waits for its end.

    `job_pid` is the keeper's first child, the command itself. `job_file`: it has a job file for CUDA.
    `io_uring_trouble` says why the job is not kept from io_uring, None where it is or need not be.
    """

    keeper: ProcessId
    job_pid: int
    watch: Watch
    job_file: bool
    io_uring_trouble: str | None


def start(launch: Launch, on_keeper: Callable[[ProcessId], None]) -> Launched:
    """Start the job under a keeper, in a session of its own, its output appended to the logs of the run.

    `on_keeper` is called with the root of the tree before the job starts: whoever writes it down there never loses
    sight of the job, and where that raises, no job is started.
    Raises ProgramNotFound, ProgramNotExecutable, KeeperFailed, FileTrouble, NoSpace and what `on_keeper` raises.
    """
    files.make_private_folder(launch.run.output)
    files.remove(launch.run.job_exit)
    given_job_file = JOB_FILE in launch.environment
    if given_job_file:
        launch = replace(launch, cuda_launcher=None)
    child, said = _start_keeper(launch, on_keeper)
    if not said and launch.cuda_launcher is not None:
        # NVIDIA's utility did not get as far as to start the keeper; without it the job still runs.
        child.wait()
        child.close()
        launch = replace(launch, cuda_launcher=None)
        child, said = _start_keeper(launch, on_keeper)
    job_pid, unfiltered, failure = _numbers(said)
    if failure or not said:
        child.wait()
        child.close()
        raise _not_started(launch, failure) if failure else _keeper_failed(launch)
    keeper = identify(child.pid)
    trouble = os.strerror(unfiltered) if unfiltered else None
    watch = Watch(keeper, launch.run.job_exit, child)
    return Launched(keeper, job_pid, watch, given_job_file or launch.cuda_launcher is not None, trouble)


def cuda_launcher(facts: GpuFacts, search_path: str) -> Path | None:
    """NVIDIA's utility, where the driver knows job files; `search_path` is as in $PATH.

    With a job file the driver takes care of processes that inherited a GPU, such as forked DataLoader workers. The
    utility makes it (`--launch-job`): a file in memory with a content known to NVIDIA alone, in
    CUDA_CHECKPOINT_JOB_FILE.
    """
    if not facts.gpus or facts.driver is None:
        return None
    if not supports(DriverVersion.parse(facts.driver), Feature.JOB_FILE):
        return None
    found = shutil.which(CUDA_PROGRAM, path=search_path)
    return Path(found) if found else None


def _start_keeper(launch: Launch, on_keeper: Callable[[ProcessId], None]) -> tuple[command.Child, bytes]:
    """The keeper, and what it said of the start; nothing where it ended before."""
    with ExitStack() as ours, ExitStack() as handed_on:
        logs = [_closing(handed_on, _open_log(path)) for path in (launch.run.stdout, launch.run.stderr)]
        specification, specifying = os.pipe()
        _closing(handed_on, specification)
        writer = ours.enter_context(open(specifying, "wb", buffering=0))
        said, saying = os.pipe()
        _closing(handed_on, saying)
        reader = ours.enter_context(open(said, "rb"))
        try:
            child = command.start_unattached(
                _words(launch, specification, saying),
                stdout=logs[0],
                stderr=logs[1],
                environment=_keeper_environment(launch),
                pass_fds=(specification, saying, *_job_file_descriptor(launch)),
                cwd=launch.cwd,
            )
        except OSError as error:
            raise files.trouble(error, f"The job cannot be started in {launch.cwd}") from error
        handed_on.close()
        try:
            on_keeper(identify(child.pid))
            _write_all(writer, _specification(launch))
        except BaseException:
            # It starts nothing without the whole of the specification.
            writer.close()
            child.wait()
            child.close()
            raise
        writer.close()
        return child, reader.read()


def _words(launch: Launch, specification: int, saying: int) -> tuple[str, ...]:
    """The command line of the keeper, which does not name the job's command: `pkill -f train.py` is for the job."""
    launcher = () if launch.cuda_launcher is None else (str(launch.cuda_launcher), _CUDA_LAUNCH)
    python = (sys.executable, "-I", "-S", str(_KEEPER))
    return (*launcher, *python, launch.run.name, str(specification), str(saying))


def _job_file_descriptor(launch: Launch) -> tuple[int, ...]:
    """The job file that we inherited, where ckptctl itself was started by NVIDIA's utility."""
    number = launch.environment.get(JOB_FILE, "").removeprefix(_OWN_DESCRIPTORS)
    if not number.isdecimal() or not Path(_OWN_DESCRIPTORS, number).exists():
        return ()
    return (int(number),)


def _keeper_environment(launch: Launch) -> dict[str, str]:
    return {name: value for name, value in launch.environment.items() if not name.startswith(_LOADER_PREFIX)}


def _specification(launch: Launch) -> bytes:
    """What keeper.py reads: fields that end in NUL each, and the word that says that it is complete."""
    own = {STATUS_VARIABLE: str(launch.run.job_status), RUN_VARIABLE: launch.run.name}
    variables = [f"{name}={value}" for name, value in {**launch.environment, **own}.items()]
    program = b"" if launch.allow_io_uring else seccomp.without_io_uring()
    fields = (str(launch.run.job_exit), f"{launch.linger_s:g}", str(launch.umask), program.hex(), str(len(variables)))
    return b"\0".join(os.fsencode(field) for field in (*fields, *variables, *launch.command, "end"))


def _numbers(said: bytes) -> tuple[int, int, int]:
    """The pid of the job, why it has no filter, why it could not be executed; zeros where nothing was said."""
    words = [int(word) for word in said.split()]
    return (words[0], words[1], words[2]) if words else (0, 0, 0)


def _not_started(launch: Launch, failure: int) -> CkptctlError:
    program = launch.command[0]
    if failure not in (errno.ENOENT, errno.ENOTDIR):
        hint = "Begin a script with a line such as #!/bin/sh." if failure == errno.ENOEXEC else "See chmod +x."
        return ProgramNotExecutable(f"{program} cannot be executed: {os.strerror(failure)}.", hint=hint)
    if "/" in program and (launch.cwd / program).exists():
        hint = "Look at its first line: the interpreter that it names does not exist."
    else:
        hint = "Check how it is spelled, and the PATH."
    return ProgramNotFound(f"{program} cannot be started: {os.strerror(failure)}.", hint=hint)


def _keeper_failed(launch: Launch) -> KeeperFailed:
    return KeeperFailed(
        "The keeper of the job ended before the job was started.", hint=f"See the end of {launch.run.stderr}."
    )


def _open_log(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, files.PRIVATE_FILE)
    except OSError as error:
        raise files.trouble(error, f"The log {path} cannot be opened") from error


def _closing(held: ExitStack, descriptor: int) -> int:
    held.callback(os.close, descriptor)
    return descriptor


def _write_all(file: RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    # A keeper that is gone says so by saying nothing.
    with suppress(BrokenPipeError):
        while rest:
            rest = rest[file.write(rest) or 0 :]
