"""The composition root: settings, programs, folders and clocks become one object, each part made when first needed."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptctl import config
from ckptctl.events import Reporter
from ckptctl.interrupt import SignalInterrupt

if TYPE_CHECKING:
    from ckptctl.criu.program import Criu
    from ckptctl.cuda.choice import Choice
    from ckptctl.host.gpu import GpuFacts
    from ckptctl.host.machine import Machine
    from ckptctl.preflight.survey import Facts
    from ckptctl.snapshot.recover import Recovery
    from ckptctl.snapshot.services import Services
    from ckptctl.store.layout import Store

# How long a command that only asks waits for each thing that may hang; and one that acts, for facts that it needs.
ASK_LIMIT_S: Final = 5.0
_ACT_LIMIT_S: Final = 30.0


class App:
    """One call of ckptctl."""

    def __init__(self, settings: config.Settings, reporter: Reporter, interrupt: SignalInterrupt) -> None:
        self.settings = settings
        self.reporter = reporter
        self.interrupt = interrupt

    @cached_property
    def services(self) -> Services:
        """What the snapshot layer needs from outside. Reads the facts of this machine."""
        from ckptctl.snapshot.services import HostState, Services
        from ckptctl.store.owner import this_owner

        return Services(
            find_criu=self._find_criu,
            open_cuda=_open_cuda,
            read_gpu_facts=_read_gpu_facts,
            machine=self._machine(),
            host_state=HostState(self.settings.state),
            owner=this_owner(shlex.join(["ckptctl", *sys.argv[1:]]), _now()),
            reporter=self.reporter,
            interrupt=self.interrupt,
            now=_now,
            clock=time.monotonic,
            random_hex=lambda: os.urandom(2).hex(),
            lock_wait_s=self.settings.lock_wait_s,
        )

    @cached_property
    def asking(self) -> Services:
        """The services of a command that only asks: it waits for no GPU and no driver longer than some seconds."""
        limit_s = ASK_LIMIT_S
        return dataclasses.replace(
            self.services,
            find_criu=lambda: self._find_criu(timeout_s=limit_s),
            open_cuda=lambda: _open_cuda(limit_s),
            read_gpu_facts=lambda: _read_gpu_facts(timeout_s=limit_s),
        )

    def repair(self) -> tuple[Recovery, ...]:
        """Finish or undo what a ckptctl that was killed has left. Costs a look at folders if there is nothing."""
        from ckptctl.snapshot.services import HostState

        host = HostState(self.settings.state)
        places = [host.journal, host.locks, self.settings.store / "locks"]
        if not any(_holds_entries(place) for place in places):
            return ()
        from ckptctl.snapshot.recover import recover
        from ckptctl.store.locks import sweep

        recovered = recover(self.services)
        for folder in places[1:]:
            sweep(folder, self.services.owner)
        return recovered

    def existing_store(self) -> Store:
        """The store, which must be there. Raises StoreMissing, StoreUnsafe."""
        from ckptctl.store.layout import open_store

        return open_store(self.settings.store)

    def store_if_any(self) -> Store | None:
        """The store, None where there is none yet. Raises StoreUnsafe."""
        from ckptctl.store.layout import StoreMissing

        try:
            return self.existing_store()
        except StoreMissing:
            return None

    def store(self) -> Store:
        """The store, created where it is missing. Raises StoreUnsafe, FileTrouble, NoSpace."""
        from ckptctl.store.layout import create_store

        return create_store(self.settings.store)

    def environment(self) -> dict[str, str]:
        """The environment of ckptctl, with its setting for criu."""
        from ckptctl.criu import program

        named = {program.VARIABLE: str(self.settings.criu)} if self.settings.criu else {}
        return {**os.environ, **named}

    def facts(self) -> Facts:
        """What can be known of this machine, gathered within seconds. Raises StoreUnsafe."""
        from ckptctl.preflight.survey import Inquiry, gather

        return gather(Inquiry(self.settings.store, self.environment(), _now(), self._newest(), ASK_LIMIT_S))

    def _newest(self) -> datetime | None:
        """When the newest snapshot of the store was taken; None without one, and where the store does not answer."""
        from ckptctl.preflight.asked import NothingHeard, within
        from ckptctl.store.catalog import newest

        def ask() -> datetime | None:
            store = self.store_if_any()
            return newest(store) if store else None

        try:
            return within(ASK_LIMIT_S, "the newest snapshot", ask)
        except NothingHeard:
            return None

    def _machine(self) -> Machine:
        from ckptctl.criu.program import with_own_capabilities
        from ckptctl.host.machine import read_machine

        return with_own_capabilities(read_machine(), self.environment())

    def _find_criu(self, timeout_s: float = _ACT_LIMIT_S) -> Criu:
        from ckptctl.criu import program

        return program.find(self.environment(), timeout_s=timeout_s)


@contextmanager
def opened(flags: Mapping[str, str | Path | None], reporter: Reporter) -> Iterator[App]:
    """The App for one command; signals are collected while it is in use.

    `flags` are the settings of the command line by key; None where one was not given.
    Raises ConfigError, UsageError.
    """
    given = {key: str(value) for key, value in flags.items() if value is not None}
    settings = config.load(os.environ, uid=os.geteuid(), working_folder=Path.cwd(), flags=given)
    interrupt = SignalInterrupt()
    with interrupt.installed():
        yield App(settings, reporter, interrupt)


def _holds_entries(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(folder.glob("[!.]*.json"))
    except OSError as error:
        from ckptctl.files import trouble

        raise trouble(error, f"{folder} cannot be looked at") from error


def _open_cuda(query_limit_s: float | None = None) -> Choice:
    from ckptctl.cuda.choice import choose

    return choose(os.environ.get("PATH", os.defpath), query_limit_s=query_limit_s)


def _read_gpu_facts(timeout_s: float = _ACT_LIMIT_S) -> GpuFacts:
    from ckptctl.host.gpu import read_gpu_facts

    return read_gpu_facts(timeout_s=timeout_s)


def _now() -> datetime:
    return datetime.now(UTC)
