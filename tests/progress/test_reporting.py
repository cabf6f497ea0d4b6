"""`ckptctl.report`, called by real jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import ckptctl
from ckptctl.progress.source import Unreadable
from ckptctl.progress.status_file import StatusFile
from ckptctl.store.manifest import Progress
from support import Jobs
from support.jobs import python
from support.waiting import wait_for


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "job-status.json"
    monkeypatch.setenv("CKPTCTL_STATUS", str(path))
    monkeypatch.delenv("RANK", raising=False)
    return path


def told(path: Path) -> Progress:
    return StatusFile(path).read()


def run(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A job of its own: what a process has reported and complained of is its own."""
    kept = {name: value for name, value in os.environ.items() if name not in {"RANK", "CKPTCTL_STATUS"}}
    return subprocess.run(
        python(f"import ckptctl\n{code}"), env={**kept, **environment}, capture_output=True, text=True, timeout=60
    )


def test_what_is_reported_is_read(path: Path) -> None:
    ckptctl.report(step=120, epoch=3, val_loss=1.83)
    assert told(path) == Progress(120, 3, {"val_loss": 1.83}, "status file", {"val_loss": 120})


def test_what_is_left_out_stays_as_it_was(path: Path) -> None:
    ckptctl.report(epoch=1)
    ckptctl.report(step=100, val_loss=2.5)
    ckptctl.report(step=110, loss=1.5)
    ckptctl.report(acc=0.5)
    ckptctl.report(epoch=2)
    assert told(path) == Progress(
        110,
        2,
        {"val_loss": 2.5, "loss": 1.5, "acc": 0.5},
        "status file",
        {"val_loss": 100, "loss": 110, "acc": 110},
    )


def test_work_taken_back_takes_its_metrics_along(path: Path) -> None:
    ckptctl.report(step=10, epoch=1, loss=3.5)
    ckptctl.report(step=20, val_loss=2.5)
    ckptctl.report(step=15)
    assert told(path).metrics == {"loss": 3.5}
    ckptctl.report(step=1, epoch=2)  # a step that begins anew with each epoch
    assert told(path).metrics == {"loss": 3.5}


def test_numbers_of_other_kinds(path: Path) -> None:
    ckptctl.report(step=Decimal(7), epoch=True, a=Fraction(3, 2), b=Decimal("0.5"))
    assert told(path) == Progress(7, 1, {"a": 1.5, "b": 0.5}, "status file", {"a": 7, "b": 7})


@pytest.mark.requires_torch
def test_numbers_of_torch(path: Path) -> None:
    torch = pytest.importorskip("torch")
    ckptctl.report(step=torch.tensor(7), a=torch.tensor(1.5), b=torch.tensor([[2.5]]))
    assert told(path) == Progress(7, None, {"a": 1.5, "b": 2.5}, "status file", {"a": 7, "b": 7})


def test_numbers_that_json_does_not_have(path: Path) -> None:
    ckptctl.report(step=1, a=float("nan"), b=float("inf"), c=-float("inf"), d=None)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    metrics = told(path).metrics
    assert str(metrics) == "{'a': nan, 'b': inf, 'c': -inf}"


def test_without_a_place_to_write_to_nothing_happens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CKPTCTL_STATUS")
    ckptctl.report(step=1)
    monkeypatch.setenv("CKPTCTL_STATUS", "")
    ckptctl.report(step=1)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("rank", "writes"), [("0", True), ("1", False), ("7", False)])
def test_of_several_ranks_the_first_one_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, writes: bool
) -> None:
    monkeypatch.setenv("RANK", rank)
    ckptctl.report(step=1)
    assert path.exists() == writes


@pytest.mark.requires_torch
def test_under_torchrun_the_first_rank_writes(tmp_path: Path) -> None:
    status, script = tmp_path / "status.json", tmp_path / "train.py"
    script.write_text(
        "import os, ckptctl\n"
        "rank = int(os.environ['RANK'])\n"
        "for step in range(50): ckptctl.report(step=step, rank=rank)\n"
        "print('rank', rank, 'is done')\n"
    )
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "CKPTCTL_STATUS": str(status)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("is done") == 2, done.stderr
    assert told(status) == Progress(49, None, {"rank": 0.0}, "status file", {"rank": 49})


def test_nobody_else_may_read_it(path: Path) -> None:
    ckptctl.report(step=1)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_report_grows_with_its_metrics(path: Path) -> None:
    metrics: dict[str, Any] = {f"metric/{number}": number for number in range(200)}
    ckptctl.report(step=1, **metrics)
    assert told(path).metrics == metrics
    assert path.stat().st_size % 1024 == 0


# ---- trouble ----


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("ckptctl.report(step='x', loss=1.5)", {"loss": 1.5}),
        ("ckptctl.report(step=-1, loss=1.5)", {"loss": 1.5}),
        ("ckptctl.report(step=float('nan'), loss=1.5)", {"loss": 1.5}),
        ("ckptctl.report(loss=1.5, acc=[])", {"loss": 1.5}),
        ("ckptctl.report(loss=1.5, acc=10**400)", {"loss": 1.5}),
        ("class Bad:\n def __float__(self): raise ZeroDivisionError\n def __repr__(self): raise ZeroDivisionError\n"
         "ckptctl.report(loss=1.5, acc=Bad())", {"loss": 1.5}),
    ],
)  # fmt: skip
def test_a_value_that_is_no_number_is_told_once_and_the_others_count(
    tmp_path: Path, code: str, kept: dict[str, float]
) -> None:
    path = tmp_path / "status.json"
    done = run(f"{code}\nckptctl.report(acc='y')", {"CKPTCTL_STATUS": str(path)})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("ckptctl.report: ")
    assert told(path).metrics == kept


def _no_folder(path: Path) -> Path:
    return path / "missing" / "status.json"


def _a_folder(path: Path) -> Path:
    (path / "status.json").mkdir()
    return path / "status.json"


def _no_path(path: Path) -> Path:
    return path / ("x" * 300)


@pytest.mark.parametrize("place", [_no_folder, _a_folder, _no_path])
def test_what_cannot_be_written_is_told_once_and_the_job_goes_on(tmp_path: Path, place: Any) -> None:
    status = place(tmp_path)
    done = run("for step in range(3): ckptctl.report(step=step)\nprint('done')", {"CKPTCTL_STATUS": str(status)})
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr.count("\n") == 1
    assert f"ckptctl.report: {status} cannot be written: " in done.stderr


def test_without_standard_error_it_is_silent(tmp_path: Path) -> None:
    status = str(tmp_path / "missing" / "status.json")
    for code in ("sys.stderr = None", "sys.stderr.close()"):
        done = run(f"import sys\n{code}\nckptctl.report(step=1)\nprint('done')", {"CKPTCTL_STATUS": status})
        assert (done.returncode, done.stdout) == (0, "done\n")


def test_a_full_disk_leaves_the_last_report(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    code = (
        "import resource, signal\n"
        "ckptctl.report(step=1)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "ckptctl.report(step=2)"
    )
    done = run(code, {"CKPTCTL_STATUS": str(status)})
    assert "cannot be written" in done.stderr
    assert told(status).step == 1


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    os.mkfifo(status)
    assert run("ckptctl.report(step=1)", {"CKPTCTL_STATUS": str(status)}).stderr == ""
    assert told(status).step == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"step": "x", "epoch": 1, "metrics": {}}',
        '{"step": 1, "epoch": 1, "metrics": {"a": []}}',
        "\0" * 99,
    ],
)
def test_rubbish_in_its_place_is_replaced(tmp_path: Path, text: str) -> None:
    status = tmp_path / "status.json"
    status.write_text(text)
    assert run("ckptctl.report(loss=1.5)", {"CKPTCTL_STATUS": str(status)}).stderr == ""
    assert told(status) == Progress(None, None, {"loss": 1.5}, "status file")


# ---- several processes and threads ----


def test_a_second_program_of_the_job_goes_on_from_the_first(tmp_path: Path) -> None:
    status = {"CKPTCTL_STATUS": str(tmp_path / "status.json")}
    run("ckptctl.report(step=300, epoch=2, loss=1.5)", status)
    run("ckptctl.report(val_loss=1.75)", status)
    assert told(tmp_path / "status.json") == Progress(
        300, 2, {"loss": 1.5, "val_loss": 1.75}, "status file", {"loss": 300, "val_loss": 300}
    )


def test_a_program_goes_on_from_what_a_shell_script_said(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    status.write_text('{"step": 300, "metrics": {"loss": 1.5}}')
    run("ckptctl.report(val_loss=1.75)", {"CKPTCTL_STATUS": str(status)})
    assert told(status) == Progress(
        300, None, {"loss": 1.5, "val_loss": 1.75}, "status file", {"loss": 300, "val_loss": 300}
    )


def test_threads_report_at_once(path: Path) -> None:
    def report(name: str) -> None:
        for number in range(100):
            ckptctl.report(step=5, **{name: number})

    threads = [threading.Thread(target=report, args=(f"m{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(path).metrics == {f"m{number}": 99.0 for number in range(8)}


def test_a_forked_child_reports_though_a_thread_held_the_lock(tmp_path: Path) -> None:
    code = """
import os, threading
from ckptctl import reporting
def forever():
    for step in range(10**9): ckptctl.report(step=1, loss=step)
threading.Thread(target=forever, daemon=True).start()
for number in range(40):
    child = os.fork()
    if child == 0:
        ckptctl.report(step=1, child=number)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""
    assert run(code, {"CKPTCTL_STATUS": str(tmp_path / "status.json")}).returncode == 0


def test_a_signal_that_reports_while_a_report_is_made(tmp_path: Path) -> None:
    code = """
import signal
signal.signal(signal.SIGALRM, lambda *_: ckptctl.report(signals=1))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for step in range(3000): ckptctl.report(step=step)
signal.setitimer(signal.ITIMER_REAL, 0)
ckptctl.report(step=3000)
"""
    done = run(code, {"CKPTCTL_STATUS": str(tmp_path / "status.json")})
    assert (done.returncode, done.stderr) == (0, "")
    progress = told(tmp_path / "status.json")
    assert (progress.step, progress.metrics) == (3000, {"signals": 1.0})


_WRITER = """
import sys, ckptctl
for step in range(10**9):
    ckptctl.report(step=step, epoch=step, metric=step, **{"long" * (1 + step % 40): step})
"""


def test_what_is_read_was_never_written_in_part(tmp_path: Path, start_job: Jobs) -> None:
    """Two jobs write to one file, in processes of their own, while others read."""
    status = tmp_path / "status.json"
    for _ in range(2):
        start_job([sys.executable, "-c", _WRITER], environment={"CKPTCTL_STATUS": str(status)})
    wait_for(status.exists, 30, "a first report")
    torn: list[str] = []

    def read() -> None:
        for _ in range(3000):
            try:
                progress = StatusFile(status).read()
            except Unreadable as error:
                torn.append(str(error))
            else:
                if not progress.step == progress.epoch == progress.metrics["metric"]:
                    torn.append(str(progress))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert torn == []


# ---- what it costs ----


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import ckptctl; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__"} == {"ckptctl", "ckptctl.reporting"}


def test_names_made_up_anew_do_not_pile_up(path: Path) -> None:
    for number in range(400):
        ckptctl.report(step=number, **{f"m{number}": 1.0})
    assert list(told(path).metrics) == [f"m{number}" for number in range(144, 400)]
