"""Units and crontabs as they are written, judged by systemd's and cron's own verifiers."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ckptctl.supervise import crontab, unit_files
from ckptctl.supervise.unattended import CannotBeWritten, Unattended
from support import CommandLine

ODD_WORDS = ("$HOME ${Y} $$", "%h %%", 'say "hi"', "it's", "back\\slash \\t", ";", "a\nb\tc\x07", "", " é ", "#x", "--")


@pytest.fixture
def wanted(tmp_path: Path) -> Unattended:
    """A run that can be started here."""
    return Unattended(
        run="gpt",
        user="root",
        program=Path("/bin/true"),
        store=tmp_path,
        drained=tmp_path / "drained.json",
        cwd=tmp_path,
        umask=0o027,
        environment=(("PATH", "/usr/bin:/bin"), ("ODD", "a b$c %d \"e\" 'f'\\g")),
        environment_files=(),
        options=("--every=30m",),
        keep=("--keep-last=5",),
        command=("python", "train.py"),
        grace_s=120.0,
    )


def verifier(program: str) -> str:
    found = shutil.which(program)
    assert found, f"{program} is missing: run `scripts/setup --dev`"
    return found


def verify_units(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [verifier("systemd-analyze"), "verify", "--man=no", *map(str, sorted(folder.iterdir()))]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def write(folder: Path, units: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in units.items():
        (folder / name).write_text(text)
    return folder


def verify_crontab(path: Path) -> subprocess.CompletedProcess[str]:
    words = [verifier("crontab"), "-n", str(path)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def settings(text: str) -> dict[str, str]:
    """The lines `Name=value` of a unit, the last one of each name."""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize("of_user", [False, True])
def test_systemd_finds_nothing_wrong(wanted: Unattended, tmp_path: Path, of_user: bool) -> None:
    odd = replace(wanted, run="a run é%", command=("python", *ODD_WORDS), cwd=tmp_path / "50% of it")
    odd.cwd.mkdir()
    units = dict(unit_files.render(odd, of_user=of_user))
    assert len(units) == 5
    done = verify_units(write(tmp_path / "units", units))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_verifier_does_find_what_is_wrong(wanted: Unattended, tmp_path: Path) -> None:
    units = dict(unit_files.render(replace(wanted, program=Path("/no/such/ckptctl")), of_user=False))
    assert verify_units(write(tmp_path / "units", units)).returncode != 0


def test_the_service_leaves_the_job_to_ckptctl(wanted: Unattended) -> None:
    found = settings(unit_files.render(wanted, of_user=False)["ckptctl-run-gpt.service"])
    assert found["KillMode"] == "process"
    assert found["KillSignal"] == "SIGTERM"
    assert int(found["TimeoutStopSec"]) > wanted.grace_s
    assert found["Restart"] == "on-failure"
    assert found["RestartForceExitStatus"] == found["SuccessExitStatus"] == "75"
    assert found["RestartPreventExitStatus"].split() == ["2", "93", "126", "127"]
    assert found["ConditionPathExists"] == f"!{wanted.drained}"
    assert found["UMask"] == "0027"
    assert found["WantedBy"] == "multi-user.target"
    hardening = {"NoNewPrivileges", "PrivateTmp", "ProtectSystem", "ProtectKernelTunables", "RestrictNamespaces"}
    assert not hardening & found.keys()


def test_the_time_to_stop_grows_with_the_grace(wanted: Unattended) -> None:
    def stop_s(grace_s: float) -> int:
        units = unit_files.render(replace(wanted, grace_s=grace_s), of_user=False)
        return int(settings(units["ckptctl-run-gpt.service"])["TimeoutStopSec"])

    assert stop_s(3600.5) - stop_s(0) == 3601


def test_a_users_own_systemd_has_no_users_and_no_system_targets(wanted: Unattended) -> None:
    units = unit_files.render(wanted, of_user=True)
    assert not any("User=" in text or "network-online" in text for text in units.values())
    assert settings(units["ckptctl-run-gpt.service"])["WantedBy"] == "default.target"


def test_without_a_policy_no_snapshot_is_touched(wanted: Unattended) -> None:
    assert list(unit_files.render(replace(wanted, keep=()), of_user=False)) == ["ckptctl-run-gpt.service"]
    assert "forget" not in crontab.render(replace(wanted, keep=()), with_user=False)


def test_names_of_units_are_those_of_systemd(wanted: Unattended) -> None:
    names = ["plain", "a b", "50%", "é", "ü.x_y:z", "back\\slash"]
    escaped = subprocess.run([verifier("systemd-escape"), *names], capture_output=True, text=True, check=True)
    assert [unit_files.escaped_name(name) for name in names] == escaped.stdout.split()
    with pytest.raises(CannotBeWritten):
        unit_files.render(replace(wanted, run="é" * 60), of_user=False)


@pytest.mark.parametrize(
    "changes",
    [{"cwd": Path("/a\nb")}, {"cwd": Path("/a ")}, {"command": ("x\udcff",)}, {"user": "a\nb"}],
    ids=["line break", "blank at the end", "no UTF-8", "user"],
)
def test_what_a_unit_cannot_express_is_refused(wanted: Unattended, changes: dict[str, object]) -> None:
    with pytest.raises(CannotBeWritten) as raised:
        unit_files.render(replace(wanted, **changes), of_user=False)  # type: ignore[arg-type]
    assert raised.value.hint


@pytest.mark.parametrize("with_user", [False, True])
def test_cron_finds_nothing_wrong(wanted: Unattended, tmp_path: Path, with_user: bool) -> None:
    odd = replace(wanted, command=("python", "50%", "it's $HOME", 'say "hi"', "back\\slash", "", "é"))
    text = crontab.render(odd, with_user=with_user)
    (tmp_path / "crontab").write_text(text)
    done = verify_crontab(tmp_path / "crontab")
    assert done.returncode == 0, done.stderr
    jobs = [line for line in text.splitlines() if line[0] in "*0123456789"]
    assert len(jobs) == 3
    assert all((line.split()[5] == "root") == with_user for line in jobs)


def test_the_verifier_does_find_a_wrong_line(wanted: Unattended, tmp_path: Path) -> None:
    text = crontab.render(wanted, with_user=False).replace("*/5 * * * *", "*/5 * * 77 *")
    (tmp_path / "crontab").write_text(text)
    assert verify_crontab(tmp_path / "crontab").returncode != 0


@pytest.mark.parametrize("words", [("a\nb",), ("x" * 1000,), ("a\tb",)], ids=["line break", "too long", "tab"])
def test_what_cron_cannot_express_is_refused(wanted: Unattended, words: tuple[str, ...]) -> None:
    with pytest.raises(CannotBeWritten) as raised:
        crontab.render(replace(wanted, command=("python", *words)), with_user=False)
    assert raised.value.hint


def test_runs_use_the_disk_at_different_times(wanted: Unattended) -> None:
    times = {crontab.render(replace(wanted, run=f"r{n}"), with_user=False).splitlines()[5].split()[0] for n in range(9)}
    assert len(times) > 3


# The command.


def install(ckptctl: CommandLine, folder: Path, *words: str) -> dict[str, str]:
    """The files after `ckptctl systemd install` into a folder."""
    ckptctl("systemd", "install", "--to", str(folder), *words, cwd=folder.parent).check()
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_install_writes_what_run_is_to_be_started_with(ckptctl: CommandLine, tmp_path: Path) -> None:
    words = ("--run", "gpt", "--every", "500steps", "--every", "30m", "--at-epoch-end", "--keep-last", "all")
    more = ("--grace", "5m", "--on-signal", "USR1=dump", "--env", "SEED=1", "--criu-option=--tcp-established")
    more += ("--images", "directory")
    ckptctl.environment["CKPTCTL_AIM"] = "durable"
    units = install(ckptctl, tmp_path / "units", *words, *more, "--", "python", "train.py", "--lr", "0.1")
    command = settings(units["ckptctl-run-gpt.service"])["ExecStart"]
    program, _, rest = command.partition(" ")
    assert program == str(verifier_of_ckptctl())
    assert rest == (
        f"run --run gpt --store {ckptctl.store} --every=500steps --every=30m --at-epoch-end --on-signal=USR1=dump "
        "--grace=5m --criu-option=--tcp-established --images=directory --keep-last=all -- python train.py --lr 0.1"
    )
    assert "\nEnvironment=CKPTCTL_AIM=durable\n" in units["ckptctl-run-gpt.service"]
    assert "\nEnvironment=SEED=1\n" in units["ckptctl-run-gpt.service"]
    assert f"Environment=CKPTCTL_STATE={ckptctl.state}\n" in units["ckptctl-run-gpt.service"]
    assert "--keep-last=all --prune" in units["ckptctl-forget-gpt.service"]
    assert all((tmp_path / "units" / name).stat().st_mode & 0o777 == 0o644 for name in units)
    assert verify_units(tmp_path / "units").returncode == 0


def test_installing_again_changes_what_changed_and_uninstall_removes_all(ckptctl: CommandLine, tmp_path: Path) -> None:
    folder, job = tmp_path / "units", ("--", "python", "train.py")
    install(ckptctl, folder, "--run", "gpt", "--keep-last", "3", *job)
    install(ckptctl, folder, "--run", "other", *job)
    again = ckptctl("systemd", "install", "--run", "gpt", "--to", str(folder), "--keep-last", "3", *job, cwd=tmp_path)
    assert again.check().stdout.count("unchanged: ") == 5
    done = ckptctl("systemd", "install", "--run", "gpt", "--to", str(folder), "--grace", "9m", *job, cwd=tmp_path)
    assert done.check().stdout.count("removed: ") == 4
    assert sorted(path.name for path in folder.iterdir()) == ["ckptctl-run-gpt.service", "ckptctl-run-other.service"]
    ckptctl("systemd", "uninstall", "--run", "gpt", "--to", str(folder), "--dry-run").check()
    assert len(list(folder.iterdir())) == 2
    ckptctl("systemd", "uninstall", "--run", "gpt", "--to", str(folder)).check()
    assert [path.name for path in folder.iterdir()] == ["ckptctl-run-other.service"]
    ckptctl("systemd", "uninstall", "--run", "gpt", "--to", str(folder)).check(4)


def test_a_dry_run_shows_and_writes_nothing(ckptctl: CommandLine, tmp_path: Path) -> None:
    words = ("systemd", "install", "--run", "gpt", "--to", str(tmp_path / "units"), "--dry-run")
    shown = ckptctl(*words, "--", "true").check().stdout
    assert "would write" in shown
    assert "ExecStart=" in shown
    assert not (tmp_path / "units").exists()
    assert ckptctl(*words, "--json", "--", "true").check().document["result"]["units"][0]["text"] in shown


def test_units_of_others_are_left_alone(ckptctl: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "units"
    folder.mkdir()
    own = folder / "ckptctl-run-gpt.service"
    own.write_text("[Service]\nExecStart=/bin/true\n")
    for action in (("install", "--", "true"), ("uninstall",)):
        ckptctl("systemd", action[0], "--run", "gpt", "--to", str(folder), *action[1:]).check(10)
    assert own.read_text() == "[Service]\nExecStart=/bin/true\n"


@pytest.mark.parametrize(
    "words",
    [
        ("--every", "often", "--", "true"),
        ("--keep-last", "some", "--", "true"),
        ("--on-signal", "TERM=sing", "--", "true"),
        ("--grace", "soon", "--", "true"),
        ("--files", "burn", "--", "true"),
        ("--images", "tar", "--", "true"),
        ("--env", "NO SUCH", "--", "true"),
        ("--env", "CKPTCTL_TEST_UNSET", "--", "true"),
        ("--as", "nobody at all", "--", "true"),
        (),
    ],
    ids=lambda words: " ".join(words) or "no command",
)
@pytest.mark.parametrize("command", [("systemd", "install"), ("cron",)], ids=" ".join)
def test_what_would_be_refused_at_each_start_is_refused_at_once(
    command: tuple[str, ...], words: tuple[str, ...], ckptctl: CommandLine, tmp_path: Path
) -> None:
    to = ("--to", str(tmp_path / "units")) if command[0] == "systemd" else ()
    ckptctl(*command, "--run", "gpt", *to, *words).check(2)
    assert not (tmp_path / "units").exists()


def test_every_option_of_the_groups_is_one_of_run(ckptctl: CommandLine) -> None:
    """`words_of` makes the name of an option from that of its field."""
    from dataclasses import fields

    from ckptctl.cli.care import AroundOptions, PreemptionOptions, ScheduleOptions
    from ckptctl.cli.images import KeptImageOptions
    from ckptctl.cli.keep import KeepOptions
    from ckptctl.cli.unattended import JobOptions

    wide = {"COLUMNS": "200", "TERM": "dumb"}
    listed = set(ckptctl("run", "--help", environment=wide).check().stdout.replace(",", " ").split())
    groups = (ScheduleOptions, KeepOptions, PreemptionOptions, AroundOptions, KeptImageOptions, JobOptions)
    names = {f"--{field.name.replace('_', '-')}" for group in groups for field in fields(group)}
    assert names <= listed


def verifier_of_ckptctl() -> Path:
    from support.command_line import PROGRAM

    return PROGRAM
