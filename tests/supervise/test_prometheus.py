"""The metrics are read by Prometheus's own parser."""

from __future__ import annotations

import dataclasses
import math
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ckptctl.supervise.prometheus import MetricsFile, RunFacts, render
from support.recorder import Recorder

FULL = RunFacts(
    run="gpt",
    running=True,
    snapshots_count=12,
    failures_count=1,
    last_success_s=1795262400.25,
    phases_s=(("gpu-copy", 1.5), ("criu", 4.0)),
    frozen_s=5.75,
    snapshot_bytes=123456789012,
    next_due_s=1795264200.0,
    step=12000,
    epoch=3.5,
    metrics=(("val_loss", 0.25), ("learning rate", 3e-05)),
    store_free_bytes=1 << 40,
)
Sample = tuple[str, tuple[tuple[str, str], ...]]


def read(text: str) -> dict[Sample, float]:
    """Every sample; AssertionError where two are the same, which the collector refuses."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): float(sample.value) for sample in samples}
    assert len(found) == len(samples)
    return found


def test_all_that_is_known_is_published() -> None:
    run = ("run", "gpt")
    assert read(render(FULL)) == {
        ("ckptctl_running", (run,)): 1,
        ("ckptctl_snapshots_total", (run,)): 12,
        ("ckptctl_failures_total", (run,)): 1,
        ("ckptctl_last_success_timestamp_seconds", (run,)): 1795262400.25,
        ("ckptctl_next_due_timestamp_seconds", (run,)): 1795264200,
        ("ckptctl_snapshot_duration_seconds", (("phase", "gpu-copy"), run)): 1.5,
        ("ckptctl_snapshot_duration_seconds", (("phase", "criu"), run)): 4,
        ("ckptctl_snapshot_frozen_seconds", (run,)): 5.75,
        ("ckptctl_snapshot_bytes", (run,)): 123456789012,
        ("ckptctl_step", (run,)): 12000,
        ("ckptctl_epoch", (run,)): 3.5,
        ("ckptctl_metric", (("name", "val_loss"), run)): 0.25,
        ("ckptctl_metric", (("name", "learning rate"), run)): 3e-05,
        ("ckptctl_store_free_bytes", (run,)): 1 << 40,
    }


def test_every_family_has_its_type_and_says_what_it_is() -> None:
    families = {family.name: family for family in text_string_to_metric_families(render(FULL))}
    assert {name for name, family in families.items() if family.type == "counter"} == {
        "ckptctl_snapshots",
        "ckptctl_failures",
    }
    assert {family.type for family in families.values()} == {"counter", "gauge"}
    assert all(family.documentation.endswith(".") for family in families.values())


def test_what_is_not_known_is_left_out() -> None:
    facts = RunFacts(run="gpt", running=False, snapshots_count=0, failures_count=0)
    names = {name for name, _ in read(render(facts))}
    assert names == {"ckptctl_running", "ckptctl_snapshots_total", "ckptctl_failures_total"}


def test_nothing_is_due_for_a_job_that_does_not_run() -> None:
    names = {name for name, _ in read(render(dataclasses.replace(FULL, running=False)))}
    assert "ckptctl_next_due_timestamp_seconds" not in names
    assert "ckptctl_last_success_timestamp_seconds" in names


def test_the_form_is_that_of_the_exposition_format() -> None:
    facts = RunFacts(run="gpt", running=True, snapshots_count=2, failures_count=0, metrics=(("loss", math.nan),))
    assert render(facts) == (
        "# HELP ckptctl_running Whether the job of the run is running.\n"
        "# TYPE ckptctl_running gauge\n"
        'ckptctl_running{run="gpt"} 1\n'
        "# HELP ckptctl_snapshots_total Snapshots that were committed.\n"
        "# TYPE ckptctl_snapshots_total counter\n"
        'ckptctl_snapshots_total{run="gpt"} 2\n'
        "# HELP ckptctl_failures_total Snapshots that failed.\n"
        "# TYPE ckptctl_failures_total counter\n"
        'ckptctl_failures_total{run="gpt"} 0\n'
        "# HELP ckptctl_metric What the job reports of itself.\n"
        "# TYPE ckptctl_metric gauge\n"
        'ckptctl_metric{run="gpt",name="loss"} NaN\n'
    )


@given(name=st.text(), value=st.floats(allow_nan=False))
def test_any_name_and_any_number_is_read_back(name: str, value: float) -> None:
    facts = RunFacts(
        run='a"b\\n', running=True, snapshots_count=0, failures_count=0, metrics=((name, value), ("other", 1.0))
    )
    samples = {key: value for key, value in read(render(facts)).items() if key[0] == "ckptctl_metric"}
    assert len(samples) == (1 if name == "other" else 2)
    if name != "other":
        ((_, labels), found) = next(item for item in samples.items() if dict(item[0][1])["name"] != "other")
        assert dict(labels) == {"run": 'a"b\\n', "name": name}
        assert found == value


def test_a_name_that_is_no_text_does_not_spoil_the_file() -> None:
    facts = RunFacts(run="gpt", running=True, snapshots_count=0, failures_count=0, metrics=(("a\udc80b", 1.0),))
    assert (("name", "a?b"), ("run", "gpt")) in {labels for _, labels in read(render(facts).encode().decode())}


def test_a_metric_that_is_told_twice_counts_once() -> None:
    facts = RunFacts(
        run="gpt", running=True, snapshots_count=0, failures_count=0, metrics=(("loss", 1.0), ("loss", 2.0))
    )
    assert read(render(facts))[("ckptctl_metric", (("name", "loss"), ("run", "gpt")))] == 2


# ---- the file ----


def test_the_file_is_replaced_and_readable_for_the_collector(tmp_path: Path) -> None:
    path = tmp_path / "ckptctl.prom"
    recorder = Recorder()
    file = MetricsFile(path, recorder)
    file.write(FULL)
    first = path.stat()
    assert path.read_text() == render(FULL)
    assert stat.S_IMODE(first.st_mode) == 0o644
    file.write(RunFacts(run="gpt", running=False, snapshots_count=12, failures_count=1))
    assert path.stat().st_ino != first.st_ino
    assert read(path.read_text())[("ckptctl_running", (("run", "gpt"),))] == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["ckptctl.prom"]
    assert recorder.events == []


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    recorder = Recorder()
    file = MetricsFile(folder / "ckptctl.prom", recorder)
    file.write(FULL)
    file.write(FULL)
    assert len(recorder.cautions()) == 1
    folder.mkdir()
    file.write(FULL)
    (folder / "ckptctl.prom").unlink()
    folder.rmdir()
    file.write(FULL)
    assert len(recorder.cautions()) == 2


@pytest.mark.parametrize(("value", "shown"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (1, "1"), (0.1, "0.1")])
def test_numbers_are_written_as_prometheus_writes_them(value: float, shown: str) -> None:
    facts = RunFacts(run="gpt", running=True, snapshots_count=0, failures_count=0, epoch=value)
    assert f'ckptctl_epoch{{run="gpt"}} {shown}\n' in render(facts)
