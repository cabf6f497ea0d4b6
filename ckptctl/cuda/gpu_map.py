"""Which GPU takes the place of which at a restore, as the complete map that the driver wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ckptctl.cuda.driver import GpuPair
from ckptctl.errors import CkptctlError, ExitStatus, UsageError


class GpuMapWrong(CkptctlError):
    """The GPUs of the dump cannot be placed on those of this machine as asked, or not without being asked."""

    code = "E_GPU_MAP"
    exit_status = ExitStatus.INCOMPATIBLE


@dataclass(frozen=True, slots=True)
class KnownGpu:
    """A GPU of the dump's machine or of this one; `index` is that of nvidia-smi there."""

    index: int
    uuid: str
    model: str


@dataclass(frozen=True, slots=True)
class Wish:
    """One `OLD=NEW` of the user, each a UUID (`GPU-...`) or an index of nvidia-smi."""

    old: str
    new: str


def parse_wish(text: str) -> Wish:
    """Read `OLD=NEW`. Raises UsageError."""
    match = re.fullmatch(r"(\d+|GPU-[0-9a-fA-F-]{36})=(\d+|GPU-[0-9a-fA-F-]{36})", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no GPU map.", hint="Write OLD=NEW, each a GPU's UUID or index: 0=1.")
    return Wish(match[1], match[2])


def complete_map(old: Sequence[KnownGpu], new: Sequence[KnownGpu], wishes: Sequence[Wish]) -> tuple[GpuPair, ...]:
    """The pairs for every GPU of the dump (`old`) and of this machine (`new`); empty where all stay where they were.

    What the user asked for comes first, then every GPU stays itself where it is still there, then the others go to
    GPUs of the same model in order of their index. Raises GpuMapWrong where a GPU has no place, where the numbers
    differ, which no driver can bridge, or where a wish names a GPU that is not there, twice, or of another model.
    """
    if not wishes and {gpu.uuid for gpu in old} == {gpu.uuid for gpu in new}:
        return ()
    if len(old) != len(new):
        raise GpuMapWrong(
            f"The dump was made with {len(old)} GPUs and this machine shows {len(new)}: the driver needs as many.",
            hint="Restore on a machine, or in a container, that shows as many GPUs of the same model.",
        )
    places = _as_wished(old, new, wishes)
    for gpu in old:
        if gpu.uuid not in places and any(each.uuid == gpu.uuid for each in _free(new, places, gpu.model)):
            places[gpu.uuid] = gpu.uuid
    for gpu in sorted(old, key=lambda each: each.index):
        if gpu.uuid not in places:
            places[gpu.uuid] = _first_free(gpu, new, places)
    pairs = tuple(GpuPair(gpu.uuid, places[gpu.uuid]) for gpu in old)
    return () if all(pair.old_uuid == pair.new_uuid for pair in pairs) else pairs


def _as_wished(old: Sequence[KnownGpu], new: Sequence[KnownGpu], wishes: Sequence[Wish]) -> dict[str, str]:
    places: dict[str, str] = {}
    for wish in wishes:
        source, target = _named(wish.old, old, "the dump"), _named(wish.new, new, "this machine")
        if source.uuid in places or target.uuid in places.values():
            raise GpuMapWrong(f"The GPU map names a GPU twice: {wish.old}={wish.new}.", hint="Name each GPU once.")
        if source.model != target.model:
            raise GpuMapWrong(
                f"GPU {wish.old} of the dump is a {source.model}, GPU {wish.new} here a {target.model}.",
                hint="Device memory can only go to a GPU of the same model.",
            )
        places[source.uuid] = target.uuid
    return places


def _named(text: str, gpus: Sequence[KnownGpu], where: str) -> KnownGpu:
    for gpu in gpus:
        if text.lower() in (str(gpu.index), gpu.uuid.lower()):
            return gpu
    known = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus) or "none"
    raise GpuMapWrong(f"The GPU map names {text}, which {where} does not have.", hint=f"GPUs of {where}: {known}.")


def _free(new: Sequence[KnownGpu], places: dict[str, str], model: str) -> list[KnownGpu]:
    taken = set(places.values())
    return [gpu for gpu in new if gpu.uuid not in taken and gpu.model == model]


def _first_free(gpu: KnownGpu, new: Sequence[KnownGpu], places: dict[str, str]) -> str:
    free = sorted(_free(new, places, gpu.model), key=lambda each: each.index)
    if not free:
        models = ", ".join(f"{each.index}: {each.model}" for each in new)
        raise GpuMapWrong(
            f"GPU {gpu.index} of the dump is a {gpu.model}; this machine has no such GPU left for it.",
            hint=f"Device memory can only go to a GPU of the same model. GPUs here: {models}.",
        )
    return free[0].uuid
