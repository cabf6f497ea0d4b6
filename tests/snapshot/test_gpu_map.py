"""Restores onto other GPUs than those of the dump, and what is refused before CRIU begins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support import CommandLine, Job
from support.fake_gpu import Card, FakeGpu

pytestmark = [pytest.mark.requires_criu, pytest.mark.requires_fake_gpu]

ONE, TWO = Card(number=1), Card(number=2)
Start = Callable[..., Job]
Judge = Callable[[Job], None]


@pytest.fixture
def saved(gpu: FakeGpu, train: Start, ckptctl: CommandLine) -> Job:
    """A job on GPU 0 of two that was dumped and has ended."""
    gpu.set_cards(ONE, TWO)
    job = train()
    ckptctl("dump", "--pid", str(job.pid), "--cuda").check()
    return job


@pytest.mark.parametrize("wish", ["0=1", "1=0", f"{ONE.uuid}={TWO.uuid}", f"0={TWO.uuid}"])
def test_two_gpus_are_swapped(
    wish: str, saved: Job, gpu: FakeGpu, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    ckptctl("restore", "latest", "--gpu-map", wish).check()
    assert gpu.pids_on(TWO) == {saved.pid}
    assert gpu.pids_on(ONE) == set()
    assert_undisturbed(saved)


def test_where_nothing_is_asked_each_gpu_stays_itself(
    saved: Job, gpu: FakeGpu, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    # nvidia-smi counts the other way round now: UUIDs decide, not numbers.
    gpu.set_cards(TWO, ONE)
    ckptctl("restore", "latest").check()
    assert gpu.pids_on(ONE) == {saved.pid}
    assert_undisturbed(saved)


def test_others_take_their_places_where_the_choice_is_clear(
    saved: Job, gpu: FakeGpu, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    gpu.set_cards(Card(number=7), Card(number=8))
    ckptctl("restore", "latest").check()
    assert gpu.pids_on(Card(number=7)) == {saved.pid}
    assert_undisturbed(saved)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["5=0"], 5, "The GPU map names 5, which the dump does not have"),
        (["0=5"], 5, "The GPU map names 5, which this machine does not have"),
        (["0=1", "1=1"], 5, "names a GPU twice"),
        (["0=1", "0=0"], 5, "names a GPU twice"),
        (["0:1"], 2, "Write OLD=NEW"),
    ],
)
def test_wrong_maps_are_refused_in_words(
    words: list[str], status: int, said: str, saved: Job, ckptctl: CommandLine
) -> None:
    options = [word for wish in words for word in ("--gpu-map", wish)]
    assert said in ckptctl("restore", "latest", *options).check(status).stderr
    assert not saved.processes()


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ((ONE,), "made with 2 GPUs and this machine shows 1"),
        ((ONE, TWO, Card(number=3)), "made with 2 GPUs and this machine shows 3"),
        ((Card(number=7), Card(number=8, model="Fake B200")), "no such GPU left"),
        ((), "The job needs a GPU"),
    ],
)
def test_machines_whose_gpus_do_not_fit_are_refused_in_words(
    cards: tuple[Card, ...], said: str, saved: Job, gpu: FakeGpu, ckptctl: CommandLine
) -> None:
    gpu.set_cards(*cards)
    assert said in ckptctl("restore", "latest").check(5).stderr
    assert not saved.processes()


@pytest.mark.parametrize("branch", [570])
@pytest.mark.parametrize("wish", ["0=1", None])
def test_driver_570_takes_no_map(wish: str | None, saved: Job, gpu: FakeGpu, ckptctl: CommandLine) -> None:
    if wish is None:
        gpu.set_cards(Card(number=7), Card(number=8))
    refused = ckptctl("restore", "latest", *(("--gpu-map", wish) if wish else ())).check(5).stderr
    assert "driver 570.144 can restore device memory only onto the GPUs of the dump" in refused
    assert "driver 580 or newer" in refused
    assert not saved.processes()


def test_an_older_driver_than_that_of_the_dump_is_refused(saved: Job, gpu: FakeGpu, ckptctl: CommandLine) -> None:
    older = gpu.with_driver(570)
    refused = ckptctl("restore", "latest", environment=older.environment).check(5).stderr
    assert "made with NVIDIA's driver 580.159.04; here is the older 570.144" in refused
    assert not saved.processes()


def test_device_memory_that_does_not_fit_is_refused_before_criu_begins(
    saved: Job, gpu: FakeGpu, ckptctl: CommandLine, assert_undisturbed: Judge
) -> None:
    """A restore that runs out of device memory could never be repeated."""
    gpu.set_cards(Card(number=1, total_bytes=1 << 12), TWO)
    refused = ckptctl("restore", "latest").check(5)
    assert "GPU 0 has 4.00 KiB free; the job needs 1.00 MiB of it" in refused.stderr
    assert not saved.processes()
    ckptctl("restore", "latest", "--gpu-map", "0=1").check()
    assert_undisturbed(saved)
