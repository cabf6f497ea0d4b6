"""Where a setting comes from: command line, environment, project file, user file, system file, in this order."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptctl import config
from ckptctl.cli.groups import words_of
from ckptctl.cli.images import ImageOptions, KeptImageOptions
from ckptctl.errors import UsageError
from ckptctl.images.levels import Compression
from ckptctl.snapshot.ways import Aim, Layout
from support import CommandLine
from support.command_line import PROGRAM


@pytest.fixture
def bare(ckptctl: CommandLine) -> CommandLine:
    """The command line with no setting in the environment."""
    for entry in config.SETTINGS:
        ckptctl.environment.pop(entry.variable, None)
    return ckptctl


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def store_of(ckptctl: CommandLine, *words: str, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """The store that `ckptctl list` looks into."""
    said = ckptctl("list", *words, cwd=cwd, environment=environment).check().stdout
    return said.removeprefix("No snapshots in ").removesuffix(".\n")


def user_file(ckptctl: CommandLine) -> Path:
    path = Path(ckptctl.environment["HOME"]) / ".config" / "ckptctl" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_each_place_goes_before_the_next(bare: CommandLine, project: Path) -> None:
    default = "/var/lib/ckptctl" if os.geteuid() == 0 else f"{bare.environment['HOME']}/.local/state/ckptctl"
    assert store_of(bare, cwd=project) == default
    user_file(bare).write_text('store = "/by-user"\n')
    assert store_of(bare, cwd=project) == "/by-user"
    (project / "ckptctl.toml").write_text('store = "by-project"\n')
    assert store_of(bare, cwd=project) == f"{project}/by-project"
    by_environment = {"CKPTCTL_STORE": "/by-environment"}
    assert store_of(bare, cwd=project, environment=by_environment) == "/by-environment"
    assert store_of(bare, "--store", "by-flag", cwd=project, environment=by_environment) == f"{project}/by-flag"
    assert store_of(bare, cwd=project, environment={"CKPTCTL_STORE": ""}) == f"{project}/by-project"


@pytest.mark.requires_namespaces
def test_the_system_file_is_the_last_place(bare: CommandLine, project: Path, tmp_path: Path) -> None:
    system = tmp_path / "etc" / "ckptctl"
    system.mkdir(parents=True)
    (system / "config.toml").write_text('store = "/by-system"\n')
    script = 'mount --bind "$1" /etc && exec "$2" list'
    words = ["unshare", "--mount", "sh", "-ec", script, "sh", tmp_path / "etc", PROGRAM]

    def said() -> str:
        done = subprocess.run(words, cwd=project, env=bare.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said() == "No snapshots in /by-system.\n"
    user_file(bare).write_text('store = "/by-user"\n')
    assert said() == "No snapshots in /by-user.\n"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('stor = "/x"', "unknown setting 'stor'"),
        ("store = true", "'store' must be a string"),
        ("store = 3", "'store' must be a string"),
        ('store = ["/x"]', "'store' must be a string"),
        ("lock_wait = true", "'lock_wait' must be a string"),
        ('lock_wait = "soon"', "'soon' is not a duration"),
        ("lock_wait = -1", "'-1' is not a duration"),
        ('images = "tar"', "'images' cannot be 'tar'"),
        ('aim = "soon"', "'aim' cannot be 'soon'"),
        ("store = ", "cannot be read"),
        ('store = "~nobody-is-called-so/x"', "~nobody-is-called-so/x cannot be used"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_name_of_the_file(
    written: str, said: str, bare: CommandLine, project: Path
) -> None:
    file = project / "ckptctl.toml"
    file.write_text(written)
    ended = bare("list", cwd=project).check(2)
    assert said in ended.stderr
    assert "What to do:" in ended.stderr
    if "~" not in written:
        assert str(file) in ended.stderr


def test_numbers_are_seconds(bare: CommandLine, project: Path) -> None:
    (project / "ckptctl.toml").write_text("lock_wait = 1.5")
    bare("list", cwd=project).check()


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_project_file_that_others_can_write_is_refused(mode: int, bare: CommandLine, project: Path) -> None:
    file = project / "ckptctl.toml"
    file.write_text('store = "/by-somebody"\n')
    file.chmod(mode)
    ended = bare("list", cwd=project).check(2)
    assert f"chmod go-w {file}" in ended.stderr
    file.chmod(0o644)
    assert store_of(bare, cwd=project) == "/by-somebody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_project_file_of_another_user_is_refused(bare: CommandLine, project: Path) -> None:
    file = project / "ckptctl.toml"
    file.write_text('store = "/by-somebody"\n')
    os.chown(file, 12345, 12345)
    bare("list", cwd=project).check(2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    flag=st.none() | st.just("/flag"), environment=st.none() | st.just("/environment"),
    project=st.none() | st.just("/project"), user=st.none() | st.just("/user"),
)  # fmt: skip
def test_the_first_place_that_has_it_wins(
    flag: str | None, environment: str | None, project: str | None, user: str | None, tmp_path: Path
) -> None:
    folder, home = tmp_path / "work", tmp_path / "home"
    file = config.user_file({"HOME": str(home)})
    for path, value in ((folder / config.PROJECT_FILE, project), (file, user)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'store = "{value}"' if value else "")
    given_environment = {"HOME": str(home)} | ({"CKPTCTL_STORE": environment} if environment else {})
    flags = {"store": flag} if flag else {}
    loaded = config.load(given_environment, uid=os.geteuid(), working_folder=folder, flags=flags)
    places = [
        (flag, "command line"), (environment, "environment"), (project, str(folder / config.PROJECT_FILE)),
        (user, str(file)),
    ]  # fmt: skip
    expected = next(((value, place) for value, place in places if value), None)
    if expected is not None:
        assert (str(loaded.store), dict(loaded.origins)["store"]) == expected
    else:
        assert "store" not in dict(loaded.origins) or not config.SYSTEM_FILE.exists()


def test_the_way_of_images_is_set_like_everything_else(tmp_path: Path) -> None:
    (tmp_path / config.PROJECT_FILE).write_text('images = "directory"\naim = "durable"\n')
    environment = {"HOME": str(tmp_path), "CKPTCTL_AIM": "pause"}
    loaded = config.load(environment, uid=os.geteuid(), working_folder=tmp_path, flags={"images": "stream"})
    assert (loaded.way.layout, loaded.way.aim) == (Layout.STREAM, Aim.PAUSE)
    assert loaded.from_environment == ("aim",)
    assert loaded.recompress is Compression.OFF
    loaded = config.load({"CKPTCTL_RECOMPRESS": "auto"}, uid=os.geteuid(), working_folder=tmp_path, flags={})
    assert loaded.recompress is Compression.AUTO
    loaded = config.load({}, uid=os.geteuid(), working_folder=tmp_path, flags={})
    assert (loaded.way.layout, loaded.way.aim) == (Layout.DIRECTORY, Aim.DURABLE)
    with pytest.raises(UsageError, match="--aim soon"):
        config.load({}, uid=os.geteuid(), working_folder=tmp_path, flags={"aim": "soon"})


@pytest.mark.parametrize(
    "flags", [{"compress": "fast"}, {"dedup": "off"}, {"aim": "pause"}, {"recompress": "fast"}], ids=str
)
def test_what_files_of_criu_cannot_have_is_not_asked_for_in_vain(flags: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(flags))} is for --images stream"):
        config.load({}, uid=os.geteuid(), working_folder=tmp_path, flags={"images": "directory", **flags})
    # What a file says for streams is no contradiction.
    (tmp_path / config.PROJECT_FILE).write_text("".join(f'{key} = "{value}"\n' for key, value in flags.items()))
    loaded = config.load({}, uid=os.geteuid(), working_folder=tmp_path, flags={"images": "directory"})
    assert loaded.way.layout is Layout.DIRECTORY


def test_options_of_images_are_settings_and_words() -> None:
    options = ImageOptions(compress="auto", dedup=False)
    assert options.flags() == {"compress": "auto", "dedup": "off"}
    assert words_of(options) == ("--compress=auto", "--no-dedup")
    assert words_of(ImageOptions(dedup=True)) == ("--dedup",)
    kept = KeptImageOptions(compress="fast", recompress="better")
    assert kept.flags() == {"compress": "fast", "recompress": "better"}
    assert words_of(kept) == ("--compress=fast", "--recompress=better")
