"""What is made of a record of a run, against what is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ckptctl.files import make_private_folder
from ckptctl.process.identity import ProcessId
from ckptctl.store.layout import Store
from ckptctl.store.owner import Owner, this_owner
from ckptctl.supervise import supervision
from ckptctl.supervise.overview import RunStatus, Standing, overview
from ckptctl.supervise.supervision import JobRecord, RunState, Sample, Supervision

NOW = datetime.now(UTC).replace(microsecond=0)


def status(store: Store, *, job: JobRecord, samples: tuple[Sample, ...] = ()) -> RunStatus:
    """How the run is seen of which this process says that it looks after it."""
    run, owner = store.run("gpt"), this_owner("pytest", NOW)
    make_private_folder(run.path)
    supervision.write(run.supervision, _record(owner, job, samples))
    (found,) = overview(store, "gpt", owner).runs
    return found


def _record(owner: Owner, job: JobRecord, samples: tuple[Sample, ...]) -> Supervision:
    return Supervision("gpt", ("train",), RunState.RUNNING, owner, NOW, begun=NOW, job=job, samples=samples)


def at(seconds: float, step: int) -> Sample:
    return Sample(NOW + timedelta(seconds=seconds), 1000 + step, step=step)


def this_process(started: float) -> JobRecord:
    owner = this_owner("pytest", NOW)
    return JobRecord(owner.pid, owner.start_ticks, NOW + timedelta(seconds=started))


def test_the_time_from_a_kill_to_the_resume_is_no_time_of_the_job(store: Store) -> None:
    samples = (at(0, 100), at(15, 130), at(3600, 140), at(3615, 170), at(3630, 200))
    found = status(store, job=this_process(3590), samples=samples)
    assert found.standing is Standing.RUNNING
    assert found.steps_per_s == 2.0
    assert found.memory_bytes == 1200
    assert found.samples == samples, "the curve has all of them"


def test_before_a_resumed_job_is_measured_nothing_is_said_of_its_speed(store: Store) -> None:
    found = status(store, job=this_process(3590), samples=(at(0, 100), at(15, 130)))
    assert (found.steps_per_s, found.memory_bytes) == (None, None)


def test_a_job_that_is_gone_uses_nothing(store: Store) -> None:
    owner = this_owner("pytest", NOW)
    gone = ProcessId(owner.pid, owner.start_ticks + 1)
    job = JobRecord(gone.pid, gone.start_ticks, NOW)
    found = status(store, job=job, samples=(at(0, 100), at(15, 130)))
    assert (found.pid, found.steps_per_s, found.memory_bytes) == (None, None, None)
