"""`ckptctl.report`: a job says how far it is. Imported into every job that does, so it imports next to nothing.

What the file may look like is told in docs/reference/progress.md; `ckptctl.progress.status_file` reads it.
"""

from __future__ import annotations

import os
import stat
import sys
from _thread import RLock

TYPE_CHECKING = False  # typing alone would take longer to import than all the rest
if TYPE_CHECKING:
    from typing import Any, Final, SupportsFloat, SupportsInt

    _Known = dict[str, Any]

_VARIABLE: Final = "CKPTCTL_STATUS"
_UNIT_BYTES: Final = 1024
_LARGEST_BYTES: Final = 1 << 20
_MOST_METRICS: Final = 256


class _Report:
    """What this process has reported so far; nothing here is about a descriptor, a time or a pid.

    That is why it stays true in a process that CRIU has restored.
    """

    def __init__(self) -> None:
        self.known: dict[str, _Known] = {}  # by path of the status file
        self.waiting: list[tuple[str, object, object, dict[str, Any]]] = []
        self.busy = False
        self.complained = False
        self.lock = RLock()


_report: Final = _Report()
# A fork waits for the end of a report: the child has the lock, and what is being imported, as they are at that moment.
os.register_at_fork(
    before=_report.lock.acquire, after_in_parent=_report.lock.release, after_in_child=_report.lock.release
)


def report(step: SupportsInt | None = None, epoch: SupportsInt | None = None, **metrics: SupportsFloat | None) -> None:
    """Tell whoever watches over this job how far it is: `ckptctl.report(step=120, epoch=3, val_loss=1.83)`.

    What is left out stays as it was; a metric belongs to the step of the same call, else to the last one known.
    Numbers may be those of NumPy or PyTorch, NaN and infinite metrics too. Where the environment has no CKPTCTL_STATUS,
    and on every rank but 0 (RANK), nothing happens. Any thread may call it. It never raises: a job does not fail for
    want of a report; the first trouble is told on standard error.
    """
    environment = os.environ
    path = environment.get(_VARIABLE)
    if not path or (environment.get("RANK") or "0") != "0":
        return
    with _report.lock:
        _report.waiting.append((path, step, epoch, metrics))
        if _report.busy:  # a signal came in the midst of a report, and its handler reports too
            return
        _report.busy = True
        try:
            while _report.waiting:
                _take_down(*_report.waiting.pop(0))
        finally:
            _report.busy = False


def _take_down(path: str, step: object, epoch: object, metrics: dict[str, Any]) -> None:
    try:
        known = _report.known.get(path)
        known = _merged(_read(path) if known is None else known, step, epoch, metrics)
        _report.known[path] = known
        _replace(path, known)
    except Exception as error:
        _complain(f"{path} cannot be written: {error}")


def _merged(known: _Known, step: object, epoch: object, metrics: dict[str, Any]) -> _Known:
    """What is known after this report."""
    new_step, new_epoch = _whole("step", step), _whole("epoch", epoch)
    values, before, epoch_before = dict(known["metrics"]), known["step"], known["epoch"]
    step_now = before if new_step is None else new_step
    begun_anew = new_epoch is not None and epoch_before is not None and new_epoch > epoch_before
    if new_step is not None and before is not None and new_step < before and not begun_anew:
        # Work was taken back, and with it what was measured later.
        values = {metric: one for metric, one in values.items() if (one["step"] or 0) <= new_step}
    for name, value in metrics.items():
        number = _number(name, value)
        if number is not None:
            values.pop(name, None)  # the newest stand last
            values[name] = {"value": number, "step": step_now}
    while len(values) > _MOST_METRICS:
        del values[next(iter(values))]
    return {"step": step_now, "epoch": epoch_before if new_epoch is None else new_epoch, "metrics": values}


def _whole(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except Exception as error:
        _complain(f"{name}={_shown(value)} is no number: {error}")
        return None
    if number < 0:
        _complain(f"{name}={number} is below 0")
        return None
    return number


def _number(name: str, value: Any) -> float | str | None:
    """The value as the file has it: for what JSON cannot write as a number, the word."""
    if value is None:
        return None
    try:
        number = float(value)
    except Exception as error:
        _complain(f"{name}={_shown(value)} is no number: {error}")
        return None
    if number - number == 0:
        return number
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def _shown(value: object) -> str:
    try:
        return repr(value)[:40]
    except Exception:
        return f"a {type(value).__name__}"


def _read(path: str) -> _Known:
    """What other programs of the same job have reported before this process did for the first time."""
    import json

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait
            raise ValueError
        with open(path, "rb") as file:
            found = json.loads(file.read(_LARGEST_BYTES))
        step, epoch = _whole_or_none(found.get("step")), _whole_or_none(found.get("epoch"))
        metrics = {name: _metric(one, step) for name, one in found.get("metrics", {}).items()}
        return {"step": step, "epoch": epoch, "metrics": metrics}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):  # most often there is none
        return {"step": None, "epoch": None, "metrics": {}}


def _metric(found: Any, step: int | None) -> _Known:
    """A metric of the file, which may be a plain number, in the form in which this module writes it."""
    if isinstance(found, dict):
        found, step = found["value"], _whole_or_none(found.get("step"))
    if not isinstance(found, (int, float, str)):
        raise TypeError
    return {"value": found, "step": step}


def _whole_or_none(found: object) -> int | None:
    if found is not None and type(found) is not int:
        raise TypeError
    return found


def _replace(path: str, known: _Known) -> None:
    """Put the report at `path`, all at once, not durably. Raises OSError.

    A snapshot may be taken at any moment, also while the file is open here, and at the restore CRIU opens it again, by
    its name, and of the size that it had. So the name under which it is written stays, as a second name of the report;
    sizes are round, and the file has its size before it is opened.
    """
    import json

    text = json.dumps(known).encode()
    size = -(-(len(text) + 1) // _UNIT_BYTES) * _UNIT_BYTES
    folder, name = os.path.split(path)
    # The pid is asked for anew each time: a forked process has another one.
    new = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    os.mknod(new, stat.S_IFREG | 0o600)
    os.truncate(new, size)
    descriptor = os.open(new, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.write(descriptor, text.ljust(size - 1) + b"\n") < size:
            raise OSError("the disk is full")
    finally:
        os.close(descriptor)
    os.replace(new, path)
    try:
        os.link(path, new)
    except OSError:  # a file system without hard links; what is lost is said above
        pass


def _complain(problem: str) -> None:
    """Say what is wrong on standard error, once in the life of the job."""
    if _report.complained:
        return
    _report.complained = True
    try:
        sys.stderr.write(f"ckptctl.report: {problem}. The job goes on; this is not said again.\n")
        sys.stderr.flush()
    except Exception:
        pass
