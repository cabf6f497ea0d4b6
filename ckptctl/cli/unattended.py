"""What `ckptctl systemd` and `ckptctl cron` share: a run, as it was typed, that the machine is to start by itself."""

from __future__ import annotations

import os
import pwd
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptctl import config
from ckptctl.cli.again import own_program
from ckptctl.cli.care import AroundOptions, PreemptionOptions, ScheduleOptions
from ckptctl.cli.groups import words_of
from ckptctl.cli.images import KeptImageOptions
from ckptctl.cli.keep import KeepOptions
from ckptctl.cli.options import StoreOpt, parse_files
from ckptctl.cli.umask import of_caller
from ckptctl.errors import UsageError
from ckptctl.units import parse_duration

if TYPE_CHECKING:
    from ckptctl.supervise.unattended import Unattended


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How the job runs; the words of `ckptctl run`."""

    files: Annotated[
        str,
        typer.Option(
            "--files", metavar="roll-back|keep|refuse", help="At a resume: files that grew since the snapshot."
        ),
    ] = "roll-back"
    allow_io_uring: Annotated[
        bool, typer.Option("--allow-io-uring", help="Let the job have io_uring, which cannot be dumped while in use.")
    ] = False


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """By whom and where it is started."""

    as_user: Annotated[
        str | None, typer.Option("--as", metavar="USER", help="Whose run it is.", show_default="yours")
    ] = None
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME[=VALUE]",
            help="A variable for the job, with the value that it has now; repeatable. Everybody can read it there.",
        ),
    ] = None
    environment_file: Annotated[
        list[Path] | None,
        typer.Option("--environment-file", metavar="PATH", help="A file with variables, for secrets; repeatable."),
    ] = None
    store: StoreOpt = None


@dataclass(frozen=True, slots=True)
class Typed:
    """A run as it was typed."""

    run: str
    command: tuple[str, ...]
    schedule: ScheduleOptions
    keep: KeepOptions
    preemption: PreemptionOptions
    around: AroundOptions
    images: KeptImageOptions
    job: JobOptions
    place: PlaceOptions

    def unattended(self) -> Unattended:
        """The run, for a machine that starts it by itself. Raises UsageError for what `run` would refuse."""
        from ckptctl.snapshot.services import HostState
        from ckptctl.store.names import check_run_name
        from ckptctl.supervise.unattended import Unattended

        self._judge()
        user, settings = self._settings()
        cwd = Path.cwd()
        groups = (self.schedule, self.preemption, self.around, self.images, self.job)
        return Unattended(
            run=check_run_name(self.run),
            user=user.pw_name,
            program=own_program(),
            store=settings.store,
            drained=HostState(settings.state).drained,
            cwd=cwd,
            umask=of_caller(),
            environment=self._environment(settings),
            environment_files=tuple((cwd / path) for path in self.place.environment_file or ()),
            options=tuple(word for group in groups for word in words_of(group)),
            keep=words_of(self.keep),
            command=self.command,
            grace_s=parse_duration(self.preemption.grace),
        )

    def _judge(self) -> None:
        """What would be refused at each start is refused now."""
        from ckptctl.supervise.reactions import parse_reactions

        if not self.command:
            raise UsageError("The job is missing.", hint="Say it at the end, after two dashes: -- python train.py")
        self.schedule.policy()
        self.keep.retention()
        parse_reactions(tuple(self.preemption.on_signal or ()))
        parse_files(self.job.files)

    def _settings(self) -> tuple[pwd.struct_passwd, config.Settings]:
        """The user, and the settings that ckptctl will find there."""
        try:
            user = pwd.getpwnam(self.place.as_user) if self.place.as_user else pwd.getpwuid(os.geteuid())
        except KeyError:
            raise UsageError(f"--as {self.place.as_user}: no such user.", hint="See getent passwd.") from None
        own = user.pw_uid == os.geteuid()
        variables = {one.variable for one in config.SETTINGS}
        named = {name: value for name, value in os.environ.items() if name in variables}
        environment = dict(os.environ) if own else {**named, "HOME": user.pw_dir}
        flags = {**({"store": str(self.place.store)} if self.place.store else {}), **self.images.flags()}
        return user, config.load(environment, uid=user.pw_uid, working_folder=Path.cwd(), flags=flags)

    def _environment(self, settings: config.Settings) -> tuple[tuple[str, str], ...]:
        found = {"PATH": os.environ.get("PATH", os.defpath), "CKPTCTL_STATE": str(settings.state)}
        if settings.criu:
            found["CKPTCTL_CRIU"] = str(settings.criu)
        wanted = {one.key: one.variable for one in config.SETTINGS if one.key in asdict(self.images)}
        found.update({wanted[key]: os.environ[wanted[key]] for key in settings.from_environment if key in wanted})
        for text in self.place.env or ():
            name, equals, value = text.partition("=")
            if not name.isidentifier() or (not equals and name not in os.environ):
                raise UsageError(f"--env {text}: there is no such variable.", hint="For example --env NAME=VALUE")
            found[name] = value if equals else os.environ[name]
        return tuple(found.items())
