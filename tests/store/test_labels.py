from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.errors import UsageError
from ckptctl.store import best, codec, labels
from ckptctl.store.best import BestBy, Measured, Mode
from ckptctl.store.integrity import verify_structure
from ckptctl.store.labels import Labels, LabelsDamaged, Pin, Verification
from ckptctl.store.layout import RunFolder, SnapshotFolder

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.builds(
        Labels,
        pin=st.none() | st.builds(Pin, since=moments, reason=st.none() | texts),
        tags=st.none() | st.lists(texts).map(tuple),
        verification=st.none() | st.builds(Verification, at=moments, sound=st.booleans()),
    )
)
def test_what_is_written_is_read(value: Labels) -> None:
    assert codec.decode(Labels, codec.loads(codec.dumps(value, version=1))) == value


def test_nothing_said_is_no_labels(snapshot: SnapshotFolder) -> None:
    assert labels.read(snapshot) == Labels()


def test_labels_do_not_touch_what_was_dumped(snapshot: SnapshotFolder) -> None:
    before = snapshot.manifest.read_bytes()
    labels.write(snapshot, Labels(Pin(NOW, "why"), ("x",), Verification(NOW, sound=True)))
    assert labels.read(snapshot) == Labels(Pin(NOW, "why"), ("x",), Verification(NOW, sound=True))
    assert snapshot.manifest.read_bytes() == before
    assert verify_structure(snapshot) == ()
    assert snapshot.labels.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "pin": {}}', '{"version": 1, "tags": "x"}', "{}"]
)
def test_damaged_labels_are_said_to_be(snapshot: SnapshotFolder, text: str) -> None:
    snapshot.labels.write_text(text)
    with pytest.raises(LabelsDamaged, match="labels") as caught:
        labels.read(snapshot)
    assert caught.value.hint


def test_a_link_is_not_followed(snapshot: SnapshotFolder, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(json.dumps({"version": 1}))
    snapshot.labels.symlink_to(tmp_path / "other")
    with pytest.raises(LabelsDamaged):
        labels.read(snapshot)


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("loss", Mode.MIN), ("val_loss", Mode.MIN), ("valLoss", Mode.MIN), ("test.RMSE", Mode.MIN),
        ("f1_loss", Mode.MIN), ("accuracy", Mode.MAX), ("val-acc", Mode.MAX), ("metrics/F1", Mode.MAX),
        ("acc@5/val", Mode.MAX), ("lr", None), ("lossless", None), ("", None),
    ],
)  # fmt: skip
def test_a_name_says_which_values_are_better_or_nothing(metric: str, mode: Mode | None) -> None:
    if mode is None:
        with pytest.raises(UsageError, match="cannot be told"):
            BestBy.of(metric)
    else:
        assert BestBy.of(metric) == BestBy(metric, mode)
    assert BestBy.of(metric, Mode.MAX) == BestBy(metric, Mode.MAX)


def test_the_metric_of_a_run_is_remembered(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert best.remembered(run) is None
    best.remember(run, BestBy("loss", Mode.MIN))
    written = run.best_by.stat().st_ino
    best.remember(run, BestBy("loss", Mode.MIN))
    assert (best.remembered(run), run.best_by.stat().st_ino) == (BestBy("loss", Mode.MIN), written)
    run.best_by.write_text("{")
    assert best.remembered(run) is None
    best.forget(run)
    best.forget(run)
    assert list(tmp_path.iterdir()) == []


def test_the_same_value_measured_twice_is_two_measurements() -> None:
    def snapshot(number: int, value: float, measured: int | None) -> Measured:
        steps = {} if measured is None else {"acc": measured}
        return Measured(f"s{number}", NOW + timedelta(minutes=number), 100 * number, {"acc": value}, steps)

    carried_on = [snapshot(1, 0.5, 90), snapshot(2, 0.5, 90), snapshot(3, 0.5, 290), snapshot(4, 0.9, 390)]
    assert [one.id for one in best.best_first(BestBy("acc", Mode.MAX), carried_on)] == ["s4", "s1", "s3"]
    unknown = [snapshot(1, 0.5, None), snapshot(2, 0.5, None), snapshot(3, 0.4, None)]
    assert [one.id for one in best.best_first(BestBy("acc", Mode.MIN), unknown)] == ["s3", "s1"]
    late = [snapshot(1, 0.5, 101), snapshot(2, 0.4, 200)]
    assert [one.id for one in best.best_first(BestBy("acc", Mode.MAX), late)] == ["s2"]
