"""The filesystem: who can reach the files, and where a folder is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from session_files import below, the_file
from stored import LARGE, A

from coatcheck.drivers import open_async_driver, open_driver
from coatcheck.drivers.filesystem import FilesystemDriver
from coatcheck.errors import ConfigurationError, DriverUnavailable
from coatcheck.record import Delta, Gone, Missing, Reason
from coatcheck.testing import digest, make_record
from coatcheck.testing.helpers import START, committed, puts, started, successor


def test_constructing_does_nothing(tmp_path: Path) -> None:
    FilesystemDriver(tmp_path / "missing" / "sessions")
    open_driver(f"filesystem:///{tmp_path}/sessions")
    open_async_driver(f"filesystem:///{tmp_path}/sessions")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    driver = open_driver("filesystem:///sessions?prefix=x_")
    monkeypatch.chdir(tmp_path / "elsewhere")
    driver.setup()
    assert (tmp_path / "x_sessions" / "format").exists()


def test_everything_is_for_the_owner_alone(driver: FilesystemDriver, root: Path) -> None:
    old = os.umask(0)
    try:
        record = started(driver, user="ann", values={A: LARGE})
        committed(driver.rotate(record.digest, successor(driver, record.digest), Delta(), 30, START))
        driver.revoke(digest(), START)
        driver.revoke_user("bob", START)
    finally:
        os.umask(old)
    kinds = {path.relative_to(root).parts[0] for path in below(root)}
    assert kinds == {"digest", "due", "fence", "format", "lock", "session", "user"}
    for path in (root, *root.rglob("*")):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_names_have_nothing_from_outside(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    record = make_record(sid_="0000/../../../escaped\0", user="../../../escaped\0")
    committed(driver.create(record, START))
    assert [info.sid for info in driver.sessions_of(record.user or "", START)] == [record.sid]
    nobody = ["../../x", "\0", "", "\ud800", "a" * 5000]
    assert driver.missing([record.sid, *nobody], START) == set(nobody)
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o770, 0o777])
def test_a_folder_that_others_can_reach_is_refused(driver: FilesystemDriver, root: Path, mode: int) -> None:
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        driver.setup()
    root.chmod(0o700)
    driver.setup()


def test_somebody_elses_folder_is_refused(
    driver: FilesystemDriver, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the owner of a public folder could make it before us."""
    root.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="change the owner"):
        driver.load(digest(), START)


def test_what_is_no_folder_is_refused(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(0o700)
    root.symlink_to(tmp_path / "target")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        driver.setup()
    root.unlink()
    root.touch(0o600)
    with pytest.raises(ConfigurationError, match="not a folder"):
        driver.setup()
    assert list((tmp_path / "target").iterdir()) == []


def test_a_folder_with_other_things_in_it_is_refused(driver: FilesystemDriver, root: Path) -> None:
    root.mkdir(0o700)
    (root / "precious").touch()
    with pytest.raises(ConfigurationError, match="sessions alone"):
        driver.setup()
    driver.tear_down()
    assert list(root.iterdir()) == [root / "precious"]


def test_another_format_is_refused(driver: FilesystemDriver, root: Path) -> None:
    started(driver)
    (root / "format").write_bytes(b"coatcheck sessions, format 2\n")
    other = FilesystemDriver(root)
    for use in (other.setup, other.is_set_up, lambda: other.load(digest(), START), other.tear_down):
        with pytest.raises(ConfigurationError, match="another format"):
            use()


def test_tear_down_removes_what_setup_made_and_nothing_else(driver: FilesystemDriver, root: Path) -> None:
    assert not driver.is_set_up()
    driver.setup()
    assert driver.is_set_up()
    started(driver)
    (root / "precious").touch()
    driver.tear_down()
    assert not driver.is_set_up()
    assert list(root.iterdir()) == [root / "precious"]
    (root / "precious").unlink()
    driver.setup()
    driver.tear_down()
    driver.tear_down()
    assert not root.exists()


def test_links_in_the_place_of_files_are_not_followed(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for kind in ("digest", "session"):
        record = started(driver, values={A: b"a"})
        path = the_file(root, kind)
        target.write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(target)
        before = target.read_bytes()
        assert driver.load(record.digest, START) == Missing(Reason.UNREADABLE)
        assert driver.commit(record.digest, puts({A: b"b"}), START) == Gone(Reason.UNREADABLE)
        assert not driver.revoke(record.digest, START)
        assert driver.load(record.digest, START) == Missing(Reason.REVOKED)
        assert target.read_bytes() == before
        driver.tear_down()


def test_a_link_in_the_place_of_a_lock_is_not_followed(driver: FilesystemDriver, root: Path, tmp_path: Path) -> None:
    record = started(driver)
    (lock,) = (path for path in below(root / "lock") if path.name.startswith("session-"))
    lock.unlink()
    lock.symlink_to(tmp_path / "made")
    with pytest.raises(DriverUnavailable):
        driver.commit(record.digest, puts({A: b"a"}), START)
    assert not (tmp_path / "made").exists()
