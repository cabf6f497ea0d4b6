"""How long a job would stand still, from the dumps of this machine that were measured before."""

from __future__ import annotations

import dataclasses

import pytest

from ckptctl.snapshot.estimate import estimate
from ckptctl.store.manifest import CriuTimes, Gpu, ImageRecord, Images, Manifest, Phase, Timings
from support.manifests import make_manifest

MIB = 1 << 20
HERE = "node-1"
GPU_PHASES = (Phase("look", 9.0), Phase("lock-gpu", 0.5), Phase("checkpoint-gpu", 2.0), Phase("freeze", 1.5))


def dump(size_bytes: int, pause_s: float, *, hostname: str = HERE, gpu: bool = False) -> Manifest:
    manifest = make_manifest(
        images=Images("blake3", (ImageRecord("pages-1.img", size_bytes, "0" * 64),)),
        timings=Timings(GPU_PHASES if gpu else (), CriuTimes(0, round(pause_s * 1e6), 0, 0, 0)),
        gpu=Gpu("580.159.04", "interface", (), (4711,)) if gpu else None,
    )
    return dataclasses.replace(manifest, host=dataclasses.replace(manifest.host, hostname=hostname))


def test_the_pause_grows_with_the_memory() -> None:
    assert estimate(400 * MIB, 0, [dump(100 * MIB, 0.5)], HERE).frozen_s == pytest.approx(2.0)


def test_a_small_job_pays_what_every_dump_costs() -> None:
    earlier = [dump(100 * MIB, 0.5), dump(200 * MIB, 0.8)]
    assert estimate(MIB, 0, earlier, HERE).frozen_s == pytest.approx(0.5)


def test_the_nearest_in_size_count() -> None:
    large = [dump(1000 * MIB, 1.0)] * 5
    odd = [dump(MIB, 5.0)]
    answer = estimate(1000 * MIB, 0, odd + large, HERE)
    assert answer.frozen_s == pytest.approx(1.0)
    assert answer.basis == "5 dumps of 1000 MiB on this machine, which took 1.0s"


@pytest.mark.parametrize("earlier", [[], [dump(MIB, 1.0, hostname="node-2")], [dump(MIB, 1.0, gpu=True)]])
def test_nothing_is_guessed(earlier: list[Manifest]) -> None:
    answer = estimate(MIB, 0, earlier, HERE)
    assert answer.frozen_s is None
    assert "no dump of this machine" in answer.basis


def test_a_job_with_device_memory_stands_still_from_the_first_lock() -> None:
    answer = estimate(40 * MIB, 60 * MIB, [dump(100 * MIB, 0.7, gpu=True), dump(100 * MIB, 0.7)], HERE)
    assert answer.frozen_s == pytest.approx(4.0)
    assert (answer.size_bytes, answer.device_bytes) == (100 * MIB, 60 * MIB)
