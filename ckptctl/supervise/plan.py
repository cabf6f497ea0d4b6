"""What a supervisor was asked to do, all of it, before anything is started."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptctl.schedule.policy import Policy
from ckptctl.snapshot import rollback
from ckptctl.store.layout import RunFolder, Store
from ckptctl.store.manifest import Progress
from ckptctl.supervise.hooks import Hooks
from ckptctl.supervise.notices.watch import NoticeWatch
from ckptctl.supervise.notify import Notifier
from ckptctl.supervise.prometheus import MetricsFile
from ckptctl.supervise.reactions import Reaction
from ckptctl.supervise.recompressing import Recompression
from ckptctl.supervise.snapshots import Manner


@dataclass(frozen=True, slots=True)
class Around:
    """What is told of a run, and who tells it something."""

    hooks: Hooks
    notices: NoticeWatch
    notifier: Notifier
    metrics: MetricsFile | None = None


@dataclass(frozen=True, slots=True)
class Care:
    """How a job is looked after, whoever started it.

    `open_progress` gives a reader of how far the training is, which knows nothing yet; it is asked anew after each
    restore, and told where in which logs to begin (offsets in bytes; 0 for those not named). `grace_s`: how long the
    job has after a signal, last snapshot included. `metric` is drawn by `status`. `recompression`: how kept snapshots
    are made smaller; None where they are not.
    """

    store: Store
    run: RunFolder
    policy: Policy
    manner: Manner
    reactions: Mapping[signal.Signals, Reaction]
    grace_s: float
    open_progress: Callable[[Mapping[Path, int]], Callable[[], Progress]]
    around: Around
    metric: str | None = None
    recompression: Recompression | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """What is run, and how it comes back. `restarts`: how often a job that died is resumed by this very supervisor."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path
    umask: int
    resume: bool = True
    restarts: int = 0
    allow_io_uring: bool = False
    files: rollback.Mode = rollback.Mode.ROLL_BACK
    show_output: bool = True
