"""What every source holds to, and what is peculiar to each."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptctl.progress import lightning, status_file, trainer_state
from ckptctl.progress.formats import AUTOMATIC
from ckptctl.progress.given import CommandLine
from ckptctl.progress.iteration_file import IterationFile
from ckptctl.progress.lightning import MetricsCsv
from ckptctl.progress.log import Log
from ckptctl.progress.source import Source, Unreadable
from ckptctl.progress.status_file import StatusFile
from ckptctl.progress.trainer_state import TrainerState
from ckptctl.store import manifest_json
from ckptctl.store.manifest import Progress
from support.manifests import make_manifest


@dataclass(frozen=True)
class Kind:
    """One kind of source: how it is opened on a folder, its file there, what that holds at a step, and half of it."""

    name: str
    open: Callable[[Path], Source]
    file: str
    at_step: Callable[[int], bytes]
    has_metrics: bool = True
    holds_anything: bool = False  # any text is a log


def _status(step: int) -> bytes:
    return json.dumps({"step": step, "epoch": 1, "metrics": {"loss": {"value": 1.5, "step": step}}}).encode()


def _trainer(step: int) -> bytes:
    history = [{"step": step, "epoch": 1.2, "loss": 1.5}]
    return json.dumps({"global_step": step, "epoch": 1.2, "log_history": history}).encode()


KINDS = [
    Kind("status", lambda folder: StatusFile(folder / "status.json"), "status.json", _status),
    Kind("hf", TrainerState, "checkpoint-500/trainer_state.json", _trainer),
    Kind("lightning", MetricsCsv, "version_0/metrics.csv", lambda step: f"epoch,loss,step\n1,1.5,{step}\n".encode()),
    Kind(
        "log",
        lambda folder: Log(folder / "stdout.log", AUTOMATIC),
        "stdout.log",
        lambda step: f"epoch 1 step {step} loss 1.5\n".encode(),
        holds_anything=True,
    ),
    Kind(
        "file",
        lambda folder: IterationFile(folder / "iteration"),
        "iteration",
        lambda step: f"{step}\n".encode(),
        has_metrics=False,
    ),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def file(kind: Kind, tmp_path: Path) -> Path:
    path = tmp_path / kind.file
    path.parent.mkdir(exist_ok=True)
    return path


def test_it_tells_nothing_before_there_is_anything(kind: Kind, tmp_path: Path) -> None:
    assert kind.open(tmp_path / "not-there").read() == Progress()


def test_it_tells_step_epoch_and_metrics_with_their_step(kind: Kind, tmp_path: Path, file: Path) -> None:
    file.write_bytes(kind.at_step(120))
    source = kind.open(tmp_path)
    if kind.has_metrics:
        assert source.read() == Progress(120, 1, {"loss": 1.5}, source.name, {"loss": 120})
    else:
        assert source.read() == Progress(120, source=source.name)


def test_it_follows(kind: Kind, tmp_path: Path, file: Path) -> None:
    source = kind.open(tmp_path)
    for step in (1, 2, 100):
        _replace(file, kind.at_step(step))
        assert [source.read().step, source.read().step] == [step, step]


def test_it_tells_nothing_again_once_the_file_is_gone(kind: Kind, tmp_path: Path, file: Path) -> None:
    file.write_bytes(kind.at_step(120))
    source = kind.open(tmp_path)
    source.read()
    file.unlink()
    assert source.read() == Progress()
    _replace(file, kind.at_step(7))
    assert source.read().step == 7


def test_half_of_it_is_unreadable_or_not_yet_there(kind: Kind, tmp_path: Path, file: Path) -> None:
    whole = kind.at_step(120)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        source = kind.open(tmp_path)
        try:
            assert source.read().step in {None, 1, 12, 120}
        except Unreadable as error:
            assert str(error)
        _replace(file, whole)
        assert source.read().step == 120


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_not_waited_for(
    kind: Kind, tmp_path: Path, file: Path, make: Callable[[Path], None]
) -> None:
    make(file)
    try:
        assert kind.open(tmp_path).read() == Progress()
    except Unreadable as error:
        assert "regular file" in str(error)


def test_a_huge_file_is_not_read_whole(kind: Kind, tmp_path: Path, file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    try:
        assert kind.open(tmp_path).read() == Progress()
    except Unreadable as error:
        assert "MiB" in str(error) or "header" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"[" * 100_000,
        b"9" * 5000,
        b"-5",
        b'{"step": -1, "epoch": 1e400, "global_step": "x"}',
        b'{"step": true, "metrics": []}',
        b'{"step": 9999999999999999999999, "metrics": {"a": null, "": 1, "\\ud800": 1, "b": {}}}',
        b'{"global_step": [], "log_history": {}}',
        b'{"global_step": 1, "log_history": [1, null, {"step": {}, "loss": []}]}',
        b"step\n\n1,2\n\x00\n",
        b"step,step\n1,2\n",
        b'step,"loss\n1,2\n',
        b"\xff\xfe\x00",
    ],
)
def test_hostile_contents_raise_nothing_else(kind: Kind, tmp_path: Path, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    _read_and_keep(kind.open(tmp_path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["step", "epoch", "metrics", "value", "loss", "global_step", "log_history"]) | st.text(),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_contents_raise_nothing_else(kind: Kind, tmp_path: Path, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    _read_and_keep(kind.open(tmp_path))


@given(st.lists(st.lists(st.sampled_from(["step", "epoch", "loss", "1", "2.5", "", '"', "nan", "\0"]), max_size=4)))
def test_any_table_raises_nothing_else(rows: list[list[str]]) -> None:
    data = "\n".join(",".join(row) for row in rows).encode()
    try:
        progress = lightning.parse(data, data)
    except Unreadable:
        return
    manifest_json.to_json(make_manifest(progress=progress))


def _read_and_keep(source: Source) -> None:
    """What is read can be kept in a manifest."""
    try:
        progress = source.read()
    except Unreadable as error:
        assert str(error)
        return
    manifest_json.to_json(make_manifest(progress=progress))


def _replace(file: Path, data: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(data)
    new.replace(file)


# ---- the status file ----


def test_a_metric_of_the_status_file_may_be_a_plain_number() -> None:
    progress = status_file.parse(
        b'{"step": 7, "metrics": {"loss": 1.5, "bleu": "NaN", "acc": {"value": 1, "step": 5}}}'
    )
    assert progress.metrics["loss"] == 1.5
    assert math.isnan(progress.metrics["bleu"])
    assert progress.metric_steps == {"loss": 7, "bleu": 7, "acc": 5}


# ---- Hugging Face's trainer_state.json ----

# As transformers 4.57 wrote it, shortened.
TRAINER_STATE = {
    "best_global_step": None,
    "best_metric": None,
    "epoch": 1.5,
    "eval_steps": 500,
    "global_step": 30,
    "is_world_process_zero": True,
    "log_history": [
        {"epoch": 0.5, "grad_norm": 1.25, "learning_rate": 4.5e-05, "loss": 2.5, "step": 10},
        {"epoch": 1.0, "eval_loss": 2.25, "eval_runtime": 0.5, "eval_samples_per_second": 82.1, "step": 20},
        {"epoch": 1.5, "grad_norm": float("nan"), "learning_rate": 2.5e-05, "loss": 2.0, "step": 30},
    ],
    "logging_steps": 10,
    "max_steps": 60,
    "stateful_callbacks": {"TrainerControl": {"args": {"should_log": False}}},
    "trial_params": None,
}


def test_each_metric_of_the_trainer_has_its_step() -> None:
    progress = trainer_state.parse(json.dumps(TRAINER_STATE).encode())
    assert (progress.step, progress.epoch) == (30, 1)
    assert progress.metric_steps == {"loss": 30, "grad_norm": 30, "learning_rate": 30, "eval_loss": 20}
    assert progress.metrics["eval_loss"] == 2.25
    assert math.isnan(progress.metrics["grad_norm"])


def test_the_trainer_state_written_last_counts(tmp_path: Path) -> None:
    for number, step in enumerate((1000, 500)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_bytes(_trainer(step))
        os.utime(folder / "trainer_state.json", ns=(number * 10**9, number * 10**9))
    source = TrainerState(tmp_path)
    assert source.read().step == 500
    for step in (1000, 500):
        os.utime(tmp_path / f"checkpoint-{step}" / "trainer_state.json", ns=(5, 5))
    assert source.read().step == 1000  # as new as the other: the later number


# ---- Lightning's metrics.csv ----

# As CSVLogger of Lightning 2.5 writes it: a row for the training and one for the validation of the same step.
METRICS_CSV = """\
epoch,step,train_loss,val_acc,val_loss
0,9,2.5,,
0,19,2.25,,
0,19,,0.5,2.0
1,29,1.75,,
1,39,nan,,
"""


def test_columns_that_are_filled_now_and_then(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS_CSV)
    progress = MetricsCsv(tmp_path).read()
    assert (progress.step, progress.epoch) == (39, 1)
    assert progress.metric_steps == {"train_loss": 39, "val_acc": 19, "val_loss": 19}
    assert math.isnan(progress.metrics["train_loss"])
    assert progress.metrics["val_loss"] == 2.0


def test_a_row_being_written_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS_CSV + "1,49,1.2")
    assert MetricsCsv(tmp_path).read().step == 39


def test_of_a_long_table_the_end_is_read(tmp_path: Path) -> None:
    rows = "".join(f"0,{step},1.5,,\n" for step in range(200_000))
    (tmp_path / "metrics.csv").write_text(METRICS_CSV + rows + "3,200000,,0.75,1.25\n")
    progress = MetricsCsv(tmp_path).read()
    assert (progress.step, progress.metrics["val_loss"], progress.metric_steps["train_loss"]) == (
        200_000,
        1.25,
        199_999,
    )


def test_the_newest_version_below_the_usual_folders(tmp_path: Path) -> None:
    for number, folder in enumerate(("version_1", "lightning_logs/version_2")):
        path = tmp_path / folder / "metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"epoch,step\n0,{number}\n")
        os.utime(path, (number, number))
    assert MetricsCsv(tmp_path).read().step == 1


def test_a_table_without_steps_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Unreadable, match="no column `step`"):
        MetricsCsv(tmp_path).read()


# ---- a number in a file; the command line ----


def test_a_file_that_holds_no_number() -> None:
    # Megatron writes this word into its file for converted checkpoints.
    path = Path(os.devnull)
    with pytest.raises(Unreadable, match="no regular file"):
        IterationFile(path).read()


def test_the_word_in_the_file_is_shown(tmp_path: Path) -> None:
    (tmp_path / "iteration").write_text("release\n")
    with pytest.raises(Unreadable, match="no number but 'release'"):
        IterationFile(tmp_path / "iteration").read()


def test_the_command_line_ties_metrics_to_its_step() -> None:
    assert CommandLine(5, None, {"loss": 1.5}).read() == Progress(5, None, {"loss": 1.5}, "command line", {"loss": 5})
    assert CommandLine(None, 2, {"loss": 1.5}).read() == Progress(None, 2, {"loss": 1.5}, "command line")
    assert CommandLine().read() == Progress()
