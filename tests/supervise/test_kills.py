"""A job that is killed again and again, in every way, and started again each time, ends as if nothing had been."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from support import CommandLine, wait_for
from support.supervised import Supervised, Supervisor, log_of, trains

pytestmark = pytest.mark.requires_criu

PAUSE_S, KILLS = 0.06, 30
# How far the job may come between two kills, on a machine however slow: it never runs out.
STRIDE = 10
STEPS = STRIDE * (KILLS + 2)
OPTIONS = ("--every", "5steps", "--keep-last", "3", "--grace", "20s")
# 75 saved or stopped, 134 to 143 the job was killed, -9 ckptctl was; three deaths at one step may happen by chance.
STATUSES = {75, 93, 137, -9}
# Before it has begun it is like any other program.
EARLY = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR1, 130, 143}

Blow = Callable[[Supervised, Supervisor, random.Random], None]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def the_job(run: Supervised, supervisor: Supervisor, _: random.Random) -> None:
    if supervisor.process.poll() is None:
        kill(run.job())


def the_keeper(run: Supervised, supervisor: Supervisor, _: random.Random) -> None:
    if supervisor.process.poll() is None:
        kill(run.keeper())


def the_supervisor(run: Supervised, supervisor: Supervisor, _: random.Random) -> None:
    kill(supervisor.process.pid)


def both(run: Supervised, supervisor: Supervisor, chance: random.Random) -> None:
    the_job(run, supervisor, chance)
    kill(supervisor.process.pid)


def everything(run: Supervised, supervisor: Supervisor, _: random.Random) -> None:
    run.kill_all()


def ask(run: Supervised, supervisor: Supervisor, chance: random.Random) -> None:
    supervisor.signal(chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))


def ask_and_lose_patience(run: Supervised, supervisor: Supervisor, chance: random.Random) -> None:
    """In the midst of the last snapshot."""
    supervisor.signal(signal.SIGTERM)
    time.sleep(chance.uniform(0, 0.4))
    kill(supervisor.process.pid)


BLOWS: tuple[Blow, ...] = (the_job, the_keeper, the_supervisor, both, everything, ask, ask_and_lose_patience)


@pytest.mark.parametrize("seed", [1])
def test_thirty_kills_leave_no_trace_in_the_log(seed: int, supervise: Supervised, ckptctl: CommandLine) -> None:
    chance = random.Random(seed)
    job = trains(STEPS, PAUSE_S)
    supervisor = supervise(*OPTIONS, job=job)
    supervise.save_each(supervisor, 1, every=5)
    for number in range(KILLS):
        supervise.allow(STRIDE * (number + 1))
        # Some fall into the restore, or the take-over.
        at_once = chance.random() < 0.2
        if not at_once:
            wait_for_life(supervise, supervisor)
        time.sleep(chance.uniform(0, 0.6))
        blow = chance.choice((the_supervisor, everything, ask)) if at_once else chance.choice(BLOWS)
        blow(supervise, supervisor, chance)
        status = supervisor.wait()
        allowed = STATUSES | EARLY if at_once else STATUSES
        assert status in allowed, f"kill {number} by {blow.__name__}: {status}\n{supervisor.said}"
        supervisor = supervise(*OPTIONS, job=job, until=STRIDE * (number + 2))
    supervise.allow(None)
    if supervisor.wait() == 93:
        supervisor = supervise(*OPTIONS, job=job)
    supervisor.check(0)
    assert supervise.log() == log_of(STEPS)
    # What had been let go may have been on its way out at one of the kills.
    ckptctl("prune").check()
    supervise.require_nothing_left()


def wait_for_life(run: Supervised, supervisor: Supervisor) -> None:
    """Until the job has come some steps further under this supervisor, or that has found it at its end."""
    begun = re.compile("goes on from|taken over|starts from")
    ended = supervisor.process.poll
    wait_for(lambda: ended() is not None or begun.search(supervisor.said), 60, "a beginning")
    steps = len(run.log())
    wait_for(lambda: ended() is not None or len(run.log()) > steps + 2, 60, "more steps")
