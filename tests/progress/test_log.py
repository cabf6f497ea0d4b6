"""A log is read as it grows, and goes back where it is cut back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptctl.progress.formats import AUTOMATIC, READY
from ckptctl.progress.log import Log
from ckptctl.store.manifest import Progress


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def test_each_reading_goes_on_where_the_last_one_ended(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    assert log.read() == Progress()
    append(path, "starting\nstep 1 loss 2.5\n")
    assert log.read() == Progress(1, None, {"loss": 2.5}, "log stdout.log (auto)", {"loss": 1})
    append(path, "step 2 loss 2.25\nval_loss: 1.5\nstep 3 lo")
    assert log.read() == Progress(
        2, None, {"loss": 2.25, "val_loss": 1.5}, "log stdout.log (auto)", {"loss": 2, "val_loss": 2}
    )
    append(path, "ss 2.125\nnothing\n")
    assert log.read() == Progress(
        3, None, {"loss": 2.125, "val_loss": 1.5}, "log stdout.log (auto)", {"loss": 3, "val_loss": 2}
    )


def test_a_line_being_written_does_not_count_yet(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "step 12")
    assert log.read().step is None
    append(path, "34\n")
    assert log.read().step == 1234


def test_a_bar_that_returns_to_the_beginning_of_its_line(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    for done in (10, 20, 30):
        append(path, f"\rEpoch 0: {done}%|█   | {done}/100 [00:10<00:12, 4.30it/s, loss=1.{done}]\x1b[A")
    assert log.read().step == 20  # the third may still be being written
    append(path, "\n")
    assert (log.read().step, log.read().metrics) == (30, {"loss": 1.30})


def test_backspaces_of_old_keras(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "Epoch 2/5\n 1/100 [>...] - loss: 0.9" + "\b" * 40 + " 2/100 [>...] - loss: 0.8" + "\b" * 40)
    assert (log.read().epoch, log.read().metrics) == (2, {"loss": 0.8})


def test_a_short_bar_does_not_take_the_place_of_a_longer_one(path: Path) -> None:
    log = Log(path, READY["tqdm"])
    append(path, " 45%|██  | 450/1000 [00:10<00:12, 4it/s]\r 60%|██  | 6/10 [00:01<00:00, 9it/s]\r")
    assert log.read().step == 450


def test_colours_do_not_matter(path: Path) -> None:
    append(path, "\x1b[1mstep \x1b[32m7\x1b[0m loss \x1b[31m1.5\x1b[0m\n")
    assert (Log(path, AUTOMATIC).read().step, Log(path, AUTOMATIC).read().metrics) == (7, {"loss": 1.5})


def test_bytes_that_are_no_text(path: Path) -> None:
    append(path, b"\xff\xfe\x00\x80 step 7\n\xe2\x82\nstep 8 \xff loss 1.5\n")
    assert Log(path, AUTOMATIC).read().step == 8


def test_a_log_that_is_cut_back_is_known_as_it_was_there(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "step 10 val_loss 3.5\n")
    log.read()
    sizes = {}
    for step in range(11, 60):
        append(path, f"step {step} loss 2.{step}\n")
        sizes[step] = path.stat().st_size
        log.read()
    append(path, "step 60 val_loss 1.5\n")
    assert log.read().metrics["val_loss"] == 1.5

    os.truncate(path, sizes[40])
    back = log.read()
    assert (back.step, back.metrics, back.metric_steps) == (
        40,
        {"val_loss": 3.5, "loss": 2.40},
        {"val_loss": 10, "loss": 40},
    )
    append(path, "step 41 loss 9.5\n")
    assert (log.read().step, log.read().metrics["loss"]) == (41, 9.5)


def test_a_log_that_was_cut_back_and_grew_again_unseen(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "step 1 loss 5.5\n")
    before = path.stat().st_size
    log.read()
    append(path, "step 2 best_score 9.9 at noon\n")
    assert log.read().metrics["best_score"] == 9.9
    os.truncate(path, before)
    append(path, "step 2 loss 4.5 in the afternoon of another day\n")
    assert log.read().metrics == {"loss": 4.5}


def test_a_log_that_was_written_again_in_the_same_way_is_the_same(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "step 1 loss 5.5\nstep 2 loss 4.5\n")
    first = log.read()
    text = path.read_bytes()
    os.truncate(path, 16)
    append(path, text[16:])
    assert log.read() == first


def test_marks_are_few_however_often_it_is_read(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    sizes = []
    for step in range(1500):
        append(path, f"step {step}\n")
        sizes.append(path.stat().st_size)
        log.read()
    assert len(log._marks) <= 256
    for step in (1499, 1490, 1200, 600, 3):
        os.truncate(path, sizes[step])
        assert log.read().step == step


def test_another_file_of_the_same_name_begins_anew(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "step 100 loss 5.5\n")
    log.read()
    other = path.with_name("other")
    other.write_text("step 3 loss 9.5\nand more to make it longer than the first\n")
    other.replace(path)
    assert (log.read().step, log.read().metrics) == (3, {"loss": 9.5})
    path.unlink()
    assert log.read() == Progress()


def test_work_taken_back_within_the_log(path: Path) -> None:
    """A log that is appended to by a training that starts again from an earlier model checkpoint."""
    append(path, "step 10 val_loss 3.5\nstep 20 val_loss 2.5 best_acc 0.5\nstep 15 loss 3.0\n")
    progress = Log(path, AUTOMATIC).read()
    assert (progress.step, progress.metrics) == (15, {"loss": 3.0})


def test_a_step_that_begins_anew_with_each_epoch(path: Path) -> None:
    append(path, "Epoch 1 step 100 val_loss 3.5\nEpoch 2 step 1 loss 2.5\n")
    assert Log(path, AUTOMATIC).read().metrics == {"val_loss": 3.5, "loss": 2.5}


def test_a_huge_line_is_passed_over(path: Path) -> None:
    log = Log(path, AUTOMATIC)
    append(path, "step 5\n")
    log.read()
    for _ in range(5):
        append(path, "step 6 " * 40_000)
        assert log.read().step == 5
    append(path, "step 7\nstep 8\n")  # the first of these is the end of the huge line
    assert log.read().step == 8


def test_of_a_long_log_the_end_counts(path: Path) -> None:
    append(path, "step 1 val_loss 5.5\n" + "nothing to see here\n" * 100_000 + "step 2 loss 1.5\n")
    log = Log(path, AUTOMATIC)
    assert (log.read().step, log.read().metrics) == (2, {"loss": 1.5})
    append(path, "nothing to see here\n" * 100_000 + "step 3\n")
    assert log.read().step == 3


pieces = st.sampled_from(
    [b"step 1\n", b"step 2 loss 1\n", b"step 30 loss 2\r", b"epoch 2\n", b"\xff\xfe", b"\n", b"step ", b"4", b"x" * 300]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(pieces | st.integers(0, 400), max_size=30))
def test_however_it_grows_and_shrinks_it_is_as_if_read_anew(tmp_path: Path, acts: list[bytes | int]) -> None:
    """Pieces are appended, numbers cut it back to so many bytes; each piece is marked, as real logs have times."""
    path = tmp_path / "grown.log"
    path.unlink(missing_ok=True)
    path.touch()
    log = Log(path, AUTOMATIC)
    for number, act in enumerate(acts):
        if isinstance(act, int):
            os.truncate(path, min(act, path.stat().st_size))
        else:
            append(path, b"%d " % number + act)
        if number % 3:
            log.read()
    append(path, b"end\n")
    anew = Log(path, AUTOMATIC).read()
    assert log.read() == anew
