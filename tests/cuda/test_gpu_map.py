"""Maps from the GPUs of a dump to those of a machine: always complete, never a guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptctl.cuda.driver import GpuPair
from ckptctl.cuda.gpu_map import GpuMapWrong, KnownGpu, Wish, complete_map, parse_wish
from ckptctl.errors import UsageError


def gpu(number: int, *, index: int | None = None, model: str = "H100") -> KnownGpu:
    return KnownGpu(number if index is None else index, f"GPU-00000000-0000-0000-0000-{number:012x}", model)


def pairs(*numbers: tuple[int, int]) -> tuple[GpuPair, ...]:
    return tuple(GpuPair(gpu(old).uuid, gpu(new).uuid) for old, new in numbers)


def test_on_the_same_gpus_no_map_is_needed() -> None:
    assert complete_map([gpu(0), gpu(1)], [gpu(1), gpu(0)], []) == ()


def test_another_machine_takes_them_in_order_of_index() -> None:
    old = [gpu(0), gpu(1)]
    new = [gpu(8, index=1), gpu(9, index=0)]
    assert complete_map(old, new, []) == pairs((0, 9), (1, 8))


def test_what_is_still_there_stays_and_a_replaced_gpu_takes_the_others_place() -> None:
    assert complete_map([gpu(0), gpu(1), gpu(2)], [gpu(0), gpu(7, index=1), gpu(2)], []) == pairs(
        (0, 0), (1, 7), (2, 2)
    )


def test_a_wish_is_completed_to_a_swap() -> None:
    assert complete_map([gpu(0), gpu(1)], [gpu(0), gpu(1)], [parse_wish("0=1")]) == pairs((0, 1), (1, 0))


def test_wishes_name_gpus_by_uuid_too() -> None:
    wish = parse_wish(f"{gpu(0).uuid}={gpu(1).uuid.upper().replace('GPU', 'GPU')}")
    assert complete_map([gpu(0), gpu(1)], [gpu(0), gpu(1)], [wish]) == pairs((0, 1), (1, 0))


def test_mixed_models_go_each_to_their_like() -> None:
    old = [gpu(0, model="A100"), gpu(1, model="H100")]
    new = [gpu(8, index=0, model="H100"), gpu(9, index=1, model="A100")]
    assert complete_map(old, new, []) == pairs((0, 9), (1, 8))


@pytest.mark.parametrize(
    ("new", "wishes", "message"),
    [
        ([gpu(0)], [], "2 GPUs and this machine shows 1"),
        ([gpu(8, model="A100"), gpu(9, model="H100")], [], "no such GPU left"),
        ([gpu(0), gpu(1)], [Wish("5", "0")], "the dump does not have"),
        ([gpu(0), gpu(1)], [Wish("0", "5")], "this machine does not have"),
        ([gpu(0), gpu(1)], [Wish("0", "1"), Wish("0", "0")], "twice"),
        ([gpu(0), gpu(1)], [Wish("0", "1"), Wish("1", "1")], "twice"),
        ([gpu(0, model="A100"), gpu(1)], [Wish("1", "0")], "is a H100"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(new: list[KnownGpu], wishes: list[Wish], message: str) -> None:
    with pytest.raises(GpuMapWrong, match=message) as caught:
        complete_map([gpu(0), gpu(1)], new, wishes)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "0", "0=", "=1", "a=b", "0=1=2", "GPU-1=GPU-2", "-1=0"])
def test_what_is_no_wish_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no GPU map"):
        parse_wish(text)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(4, n + 4)))))
def test_a_map_always_names_every_gpu_once_on_each_side(numbers: tuple[list[int], list[int]]) -> None:
    old = [gpu(number, index=index) for index, number in enumerate(numbers[0])]
    new = [gpu(number, index=index) for index, number in enumerate(numbers[1])]
    found = complete_map(old, new, [])
    assert {pair.old_uuid for pair in found} == {each.uuid for each in old}
    assert {pair.new_uuid for pair in found} == {each.uuid for each in new}
    both = {each.uuid for each in old} & {each.uuid for each in new}
    assert all(pair.old_uuid == pair.new_uuid for pair in found if pair.old_uuid in both)
