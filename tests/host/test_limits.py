"""Control groups of each kind, laid out in a folder, and the limits of this process."""

from __future__ import annotations

import resource
from pathlib import Path

from ckptctl.host.limits import read_control_group, read_limits


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_strictest_group_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/slurm/job_7/step_0\n",
        "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
        "sys/fs/cgroup/slurm/job_7/step_0/cgroup.procs": "",
        "sys/fs/cgroup/slurm/job_7/memory.max": "1000\n",
        "sys/fs/cgroup/slurm/job_7/memory.current": "400\n",
        "sys/fs/cgroup/slurm/memory.max": "9000\n",
    }
    group = read_control_group(lay(tmp_path, files))
    assert (group.path, group.delegated) == ("/slurm/job_7/step_0", True)
    assert (group.memory_limit_bytes, group.memory_used_bytes) == (1000, 400)


def test_the_older_hierarchies_have_one_for_memory(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:cpu,cpuacct:/a\n4:memory:/job\n0::/\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2000\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "100\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    group = read_control_group(lay(tmp_path, files))
    assert (group.path, group.memory_limit_bytes, group.memory_used_bytes) == ("/job", 2000, 100)
    assert not group.delegated


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    group = read_control_group(tmp_path)
    assert (group.memory_limit_bytes, group.memory_used_bytes) == (None, None)


def test_limits_of_this_process() -> None:
    limits = read_limits()
    assert limits.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert limits.open_files <= limits.open_files_max <= max(limits.open_files_top, limits.open_files_max)
    if Path("/dev/shm").is_mount():
        assert limits.shared_memory_bytes


def test_a_folder_is_no_shared_memory(tmp_path: Path) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    assert read_limits(tmp_path).shared_memory_bytes is None
