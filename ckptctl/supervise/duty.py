"""Who looks after which run on this host, how to start each of them again, and whether new ones are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

from ckptctl import files
from ckptctl.errors import CkptctlError, ExitStatus
from ckptctl.host.service import Service
from ckptctl.process.identity import ProcessId, is_alive
from ckptctl.snapshot.services import HostState, Services
from ckptctl.store import codec
from ckptctl.store.codec import Count, Misshapen, Pid
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.owner import Liveness, Owner
from ckptctl.supervise import supervision
from ckptctl.supervise.job import find_keeper
from ckptctl.supervise.supervision import RunState

T = TypeVar("T")

_VERSION: Final = 1
_MOST_BYTES: Final = 4 << 20
# A run that is brought back goes on from its newest snapshot, however it was started the first time.
_ANEW: Final = "--no-resume"


class Drained(CkptctlError):
    """This machine is drained for maintenance: no run is started."""

    code = "E_DRAINED"
    exit_status = ExitStatus.TRY_AGAIN


class DutyDamaged(CkptctlError):
    """A record of who looks after which run cannot be read."""

    code = "E_DUTY_DAMAGED"
    exit_status = ExitStatus.STORE


@dataclass(frozen=True, slots=True)
class Watched:
    """The root of a job that was started by others."""

    pid: Annotated[Pid, "its pid"]
    start_ticks: Annotated[Count, "when it started, in clock ticks after boot"]


@dataclass(frozen=True, slots=True)
class Call:
    """How ckptctl was called, so that it can be called so again. Environments hold secrets: for files of 0600 alone.

    `output` and `errors` are the files that its own output goes to; None for terminals, pipes and the like.
    """

    program: Annotated[tuple[str, ...], "the words that start ckptctl"]
    arguments: Annotated[tuple[str, ...], "the words after them"]
    cwd: Annotated[Path, "the working folder"]
    environment: Annotated[Mapping[str, str], "all variables"]
    umask: Annotated[Count, "of the caller"]
    output: Annotated[Path | None, "where standard output goes, if that is a file"] = None
    errors: Annotated[Path | None, "where standard error goes, if that is a file"] = None
    service: Annotated[Service | None, "the systemd service that it is, if it is one"] = None

    @property
    def words(self) -> tuple[str, ...]:
        """The command line that goes on with the run."""
        end = self.arguments.index("--") if "--" in self.arguments else len(self.arguments)
        own = tuple(word for word in self.arguments[:end] if word != _ANEW)
        return (*self.program, *own, *self.arguments[end:])


@dataclass(frozen=True, slots=True)
class Duty:
    """A ckptctl that looks after a run."""

    run: Annotated[str, "name of the run"]
    store: Annotated[Path, "the store that it belongs to"]
    supervisor: Annotated[Owner, "the ckptctl"]
    call: Annotated[Call, "how it was called"]
    watched: Annotated[Watched | None, "the job, where it was started by others"] = None

    @property
    def folder(self) -> RunFolder:
        """The run. Raises BadRunName."""
        return Store(self.store).run(self.run)

    @property
    def root(self) -> ProcessId | None:
        """The root of the job's tree while it lives, looked after or not."""
        if self.watched is None:
            return find_keeper(self.folder)
        root = ProcessId(self.watched.pid, self.watched.start_ticks)
        return root if is_alive(root) else None

    @property
    def place(self) -> tuple[Path, str]:
        """What tells one run from another."""
        return self.store, self.run

    @property
    def file_name(self) -> str:
        """Of its record; two that want to look after one run are two duties."""
        return f"{self.supervisor.pid}-{self.supervisor.start_ticks}.json"


@dataclass(frozen=True, slots=True)
class Drain:
    """Why and since when no run is started on this host."""

    since: Annotated[datetime, "since when"]
    by: Annotated[Owner, "who wants it so"]
    reason: Annotated[str, "for people; may be empty"] = ""


@contextmanager
def on_duty(host: HostState, duty: Duty) -> Iterator[None]:
    """Be known as the one who looks after the run in this block. Raises Drained, FileTrouble, NoSpace.

    First known, then refused where the machine is drained: a drain marks first and then looks who is there, so one of
    both sees the other. Who leaves its job alive stays known, since the job still has to be saved by a drain.
    """
    files.make_private_folder(host.duties)
    record = host.duties / duty.file_name
    _write(record, duty)
    try:
        refuse_while_drained(host)
        yield
    finally:
        # What is wrong with the records of others changes nothing of how this one ends.
        with suppress(CkptctlError, OSError):
            others = [one for one in _read_all(host.duties) if one.place == duty.place and one != duty]
            if others or duty.root is None:
                record.unlink(missing_ok=True)


def refuse_while_drained(host: HostState) -> None:
    """Raises Drained where this host is to stay without runs, DutyDamaged and FileTrouble."""
    drain = read_drain(host)
    if drain is not None:
        since = drain.since.astimezone().strftime("%Y-%m-%d %H:%M")
        why = f": {drain.reason}" if drain.reason else ""
        raise Drained(
            f"This machine is drained since {since}{why}. No run is started.",
            hint="Start it elsewhere, or wait: `ckptctl undrain` ends that and brings the drained runs back.",
        )


def is_needed(run: RunFolder, services: Services) -> bool:
    """Whether somebody has to start the run: it is not looked after, not over, and not refused here.

    Raises DutyDamaged, FileTrouble.
    """
    if read_drain(services.host_state) is not None:
        return False
    known = supervision.read_if_sound(run.supervision)
    if known is None:
        return True
    return not (known.is_supervised(services.owner) or known.state is RunState.FINISHED or known.given_up)


def read_drain(host: HostState) -> Drain | None:
    """The drain that is in force; None where there is none. Raises DutyDamaged, FileTrouble."""
    raw = _load(host.drained)
    return None if raw is None else _decoded(Drain, host.drained, raw)


def mark_drained(host: HostState, drain: Drain) -> None:
    """From here on no run is started; a drain that is in force keeps its reason. Raises FileTrouble, NoSpace."""
    files.make_private_folder(host.path)
    if _load(host.drained) is None:
        _write(host.drained, drain)


def read_duties(host: HostState, here: Owner) -> tuple[Duty, ...]:
    """Everybody who looks after a run on this host, and each run that lives here without anybody, by name.

    Records of what is over are removed. Raises DutyDamaged, FileTrouble.
    """
    every = _read_all(host.duties)
    attended = [one for one in every if is_attended(one, here)]
    alone: dict[tuple[Path, str], Duty] = {}
    for duty in sorted(every, key=lambda one: one.supervisor.since):
        if duty in attended:
            continue
        lives = duty.supervisor.boot_id == here.boot_id and duty.root is not None
        if lives and not any(one.place == duty.place for one in attended):
            alone[duty.place] = duty
        else:
            files.remove(host.duties / duty.file_name)
    return tuple(sorted([*attended, *alone.values()], key=lambda one: one.place))


def is_attended(duty: Duty, here: Owner) -> bool:
    """Whether the ckptctl of this record lives."""
    return duty.supervisor.liveness(here) is not Liveness.DEAD


def remember_to_bring_back(host: HostState, duty: Duty) -> None:
    """Write down a run that is about to be stopped, for `to_bring_back`. Raises FileTrouble, NoSpace."""
    files.make_private_folder(host.to_bring_back)
    for other in to_bring_back(host):
        if other.place == duty.place:
            forget_to_bring_back(host, other)
    _write(host.to_bring_back / duty.file_name, duty)


def to_bring_back(host: HostState) -> tuple[Duty, ...]:
    """The runs that were stopped by a drain and have not been brought back, by name."""
    return tuple(sorted(_read_all(host.to_bring_back), key=lambda one: one.place))


def forget_to_bring_back(host: HostState, duty: Duty) -> None:
    """It runs again, or is not to. Raises FileTrouble."""
    files.remove(host.to_bring_back / duty.file_name)


def _read_all(folder: Path) -> list[Duty]:
    try:
        paths = sorted(folder.glob("[!.]*.json"))
    except OSError as error:
        raise files.trouble(error, f"{folder} cannot be listed") from error
    loaded = [(path, _load(path)) for path in paths]
    return [_decoded(Duty, path, raw) for path, raw in loaded if raw is not None]


def _write(path: Path, record: Duty | Drain) -> None:
    files.write_atomically(path, codec.dumps(record, version=_VERSION))


def _load(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.trouble(error, f"{path} cannot be read") from error


def _decoded(record: type[T], path: Path, raw: bytes) -> T:
    try:
        document = codec.loads(raw)
        if document.get("version") != _VERSION:
            raise Misshapen(f"it has the version {document.get('version')!a}, not {_VERSION}")
        return codec.decode(record, document)
    except Misshapen as error:
        raise DutyDamaged(
            f"{path} cannot be understood: {error}.",
            hint="Look at it, and remove it if it is of no use: no job and no snapshot is touched by that.",
        ) from error
