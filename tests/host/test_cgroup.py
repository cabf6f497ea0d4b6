"""What the memory limits of control groups leave, in both versions and on trees of files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptctl.host.cgroup import memory_left_bytes

STAT = "anon 70\ninactive_file 20\nactive_file 10\nslab_reclaimable 5\n"


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def unified(folder: Path, limit: str, used: int) -> None:
    group(folder, {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": STAT})


def test_what_the_kernel_can_take_back_counts_as_free(tmp_path: Path) -> None:
    unified(tmp_path / "job", "1000", 900)
    assert memory_left_bytes(["0::/job"], tmp_path) == 135


def test_the_strictest_group_counts_even_if_it_is_above(tmp_path: Path) -> None:
    unified(tmp_path / "slurm", "500", 400)
    unified(tmp_path / "slurm" / "job", "100000", 400)
    assert memory_left_bytes(["0::/slurm/job"], tmp_path) == 135


def test_no_limit_is_no_number(tmp_path: Path) -> None:
    unified(tmp_path / "job", "max", 900)
    assert memory_left_bytes(["0::/job"], tmp_path) is None
    assert memory_left_bytes(["0::/elsewhere"], tmp_path) is None
    assert memory_left_bytes([], tmp_path) is None


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    unified(tmp_path / "job", "100", 900)
    assert memory_left_bytes(["0::/job"], tmp_path) == 0


@pytest.mark.parametrize(("limit", "left"), [("1000", 350), ("9223372036854771712", None)])
def test_the_older_hierarchy_counts_with_the_groups_below(tmp_path: Path, limit: str, left: int | None) -> None:
    files = {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": "900\n",
        "memory.stat": "inactive_file 1\nactive_file 1\ntotal_inactive_file 200\ntotal_active_file 50\n",
    }
    group(tmp_path / "memory" / "job", files)
    assert memory_left_bytes(["5:cpu:/job", "4:memory:/job", "0::/"], tmp_path) == left


def test_the_files_of_this_kernel_are_read() -> None:
    left = memory_left_bytes(Path("/proc/self/cgroup").read_text().splitlines())
    assert left is None or left > 0
