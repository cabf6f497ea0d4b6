"""The tests of a 3-tier checkpoint manager, on training scripts that know nothing of snapshots."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from support import CommandLine, wait_for
from support.supervised import Supervised, gated, log_of, stepwise, trains

pytestmark = pytest.mark.requires_criu

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 70
# What examples/train.py prints: step, epoch, loss, learning rate.
LINES = r"log:^(?P<step>\d+) (?P<epoch>\d+) (?P<loss>\S+)"
FRAMEWORKS = ["plain", pytest.param("torch", marks=pytest.mark.requires_torch)]
# Epochs of ten steps; the validation loss is lowest after the third of five.
VALIDATES = """
for epoch, val_loss in enumerate([0.9, 0.7, 0.3, 0.5, 0.6]):
    for step in range(epoch * 10 + 1, epoch * 10 + 11):
        print(f"step {step} epoch {epoch} loss {1 / step:.4f}", flush=True)
        if step % 10 == 0:
            print(f"epoch {epoch} val_loss {val_loss}", flush=True)
        wait_for_leave(step)
"""


def train(framework: str) -> tuple[str, ...]:
    plain = ("--plain",) if framework == "plain" else ()
    return stepwise(EXAMPLES / "train.py", str(STEPS), "--pause", "0.01", *plain)


@cache
def undisturbed(framework: str) -> list[str]:
    done = subprocess.run(train(framework), check=True, capture_output=True, text=True, cwd="/")
    return done.stdout.splitlines()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_script_is_saved_every_ten_steps_and_resumed_where_it_was(
    framework: str, supervise: Supervised, ckptctl: CommandLine
) -> None:
    options = ("--every", "10steps", "--keep-last", "3", "--progress", LINES)
    first = supervise(*options, job=train(framework))
    saved = supervise.save_each(first, 5, timeout_s=120)
    wait_for(lambda: list(supervise.snapshots) == saved[-3:], 30, "the last three snapshots alone")
    supervise.kill_all()
    assert supervise.steps(saved[-3:]) == [30, 40, 50]

    second = supervise(*options, job=train(framework)).check(0)
    assert f"goes on from {saved[-1]}, at step 50" in second.said
    assert supervise.log() == undisturbed(framework)
    # What is shown begins where the snapshot ends, as the log does.
    assert second.shown == undisturbed(framework)[50:]
    # What the first supervisor had let go may have been on its way out when it was killed.
    ckptctl("prune").check()
    supervise.require_nothing_left()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_older_snapshot_repeats_the_same_losses(framework: str, supervise: Supervised, ckptctl: CommandLine) -> None:
    options = ("--every", "10steps", "--progress", LINES)
    first = supervise(*options, job=train(framework))
    third = supervise.save_each(first, 5, timeout_s=120)[2]
    supervise.kill_all()
    assert len(supervise.log()) == 50
    [step] = supervise.steps([third])

    ckptctl("restore", f"gpt/step:{step}").check()
    # What has been brought back by hand is looked after again by the same command.
    second = supervise(*options, job=train(framework), until=50)
    second.wait_said("still runs")
    supervise.allow(None)
    second.check(0)
    # The steps since then were done once more, and their losses are the same to the last digit.
    assert supervise.log() == undisturbed(framework)


def test_after_forgetting_newer_ones_the_run_goes_on_from_the_older(
    supervise: Supervised, ckptctl: CommandLine
) -> None:
    first = supervise("--every", "10steps", job=trains(60, 0.01))
    saved = supervise.save_each(first, 4)
    supervise.kill_all()
    for name in saved[2:]:
        ckptctl("rm", f"gpt/{name}").check()
    second = supervise("--every", "10steps", job=trains(60, 0.01)).check(0)
    assert f"goes on from {saved[1]}" in second.said
    assert supervise.log() == log_of(60)


def test_best_is_the_lowest_validation_loss_and_each_epoch_keeps_one(supervise: Supervised) -> None:
    policy = ("--keep-best", "1", "--metric", "val_loss", "--keep-epochs", "all", "--keep-last", "1")
    ran = supervise("--on-best", "val_loss", "--at-epoch-end", *policy, job=gated(VALIDATES))
    # Best at the end of the first three epochs, and saved once each epoch is over, too.
    supervise.save_at(ran, (10, 11, 20, 21, 30, 31, 41))
    supervise.allow(None)
    ran.check(0)
    assert len(ran.saved) == 7
    best = supervise.progress(supervise.run.best.readlink().name)
    assert best.metrics["val_loss"] == 0.3
    assert best.step == 30
    assert [supervise.progress(name).epoch for name in supervise.snapshots] == [0, 1, 2, 3, 4]


def test_a_damaged_latest_falls_back_to_backup(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=trains(60, 0.01))
    saved = supervise.save_each(first, 3)
    supervise.kill_all()
    pages = supervise.run.snapshot(saved[-1]).images / "pages.blocks"
    data = bytearray(pages.read_bytes())
    data[len(data) // 2] ^= 1
    pages.write_bytes(data)

    second = supervise("--every", "10steps", job=trains(60, 0.01)).check(0)
    assert f"{saved[-1]}: The snapshot {saved[-1]} is damaged" in second.said
    assert "The one before it is tried." in second.said
    assert f"goes on from {saved[-2]}" in second.said
    assert supervise.log() == log_of(60)


def test_without_any_good_snapshot_nothing_is_begun_anew_unsaid(supervise: Supervised) -> None:
    first = supervise("--every", "10steps", job=trains(60, 0.01))
    saved = supervise.save_each(first, 2)
    supervise.kill_all()
    log = supervise.log()
    for name in saved:
        (supervise.run.snapshot(name).path / "manifest.json").write_text("{")
    second = supervise("--every", "10steps", job=trains(60, 0.01))
    assert second.wait() == 13
    assert "There is none before it." in second.said
    assert supervise.log() == log
    supervise.require_nothing_left()
    assert supervise.record.state == "stopped"


@pytest.mark.requires_torch
def test_two_ranks_under_torchrun_resume_together(supervise: Supervised) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    job = (sys.executable, *launcher, str(EXAMPLES / "ddp.py"), "120")
    options = ("--every", "20steps", "--progress", r"log:^(?P<step>\d+) ")
    first = supervise(*options, job=job)
    first.wait_saved(2, timeout_s=180)
    supervise.wait_log(60, timeout_s=120)
    supervise.kill_all()
    before = supervise.log()

    second = supervise(*options, job=job)
    second.wait_said("goes on from", timeout_s=60)
    wait_for(lambda: len(supervise.processes()) >= 4, 30, "two ranks, torchrun and the supervisor")
    second.check(0, timeout_s=180)
    log = supervise.log()
    assert [int(line.split()[0]) for line in log] == list(range(120))
    # What both runs did is the same in both, to the last digit.
    assert log[: len(before)] == before
    supervise.require_nothing_left()
