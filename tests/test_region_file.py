"""Regions over files: modes, ranges of any alignment, and what cannot be mapped."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import pytest

import tether
from conftest import RunPython
from support import descriptors

PAGE = mmap.PAGESIZE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_bytes(bytes(range(256)) * (3 * PAGE // 256) + b"end")
    return path


@pytest.mark.thread_unsafe(reason="counts the descriptors of the process")
def test_a_file_is_mapped_whole_and_read_only_unless_asked_otherwise(file: Path) -> None:
    before = descriptors()
    with tether.Region.open(file) as r:
        assert (r.mode, r.nbytes, r.name) == ("r", 3 * PAGE + 3, str(file))
        assert descriptors() == before  # the mapping needs none
        with r.share() as s:
            assert bytes(s) == file.read_bytes()
        with pytest.raises(tether.BorrowError, match="read-only"):  # fault 20
            r.borrow_mut()
        with pytest.raises(tether.BorrowError):
            r.chunks_mut(2)
        with pytest.raises(ValueError, match="r\\+"):
            r.protect("rw")
        r.protect("r")


def test_changes_go_to_the_file_with_r_plus(file: Path) -> None:
    with tether.Region.open(file, "r+") as r:
        with r.borrow_mut(PAGE, PAGE + 4) as m:
            m[:] = b"this"
        r.flush()
        assert file.read_bytes()[PAGE : PAGE + 4] == b"this"
        assert r.mode == "r+"
    assert file.read_bytes()[PAGE : PAGE + 4] == b"this"


def test_changes_of_a_private_copy_stay_here(file: Path) -> None:
    before = file.read_bytes()
    file.chmod(0o444)
    with tether.Region.open(file, mode="c") as r:
        assert r.mode == "c"
        with r.borrow_mut() as m:
            m[:4] = b"here"
        r.flush()
        with r.share() as s:
            assert s[:4] == b"here"
    assert file.read_bytes() == before


@pytest.mark.parametrize("offset", [0, 1, 255, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 17])
@pytest.mark.parametrize("length", [None, 1, PAGE - 20, 9])
@pytest.mark.parametrize("protect", [False, True])
def test_a_range_of_any_alignment_is_mapped(file: Path, offset: int, length: int | None, protect: bool) -> None:
    expected = file.read_bytes()[offset:][:length]
    with tether.Region.open(file, "c", offset, length, protect=protect) as r:
        assert r.nbytes == len(expected)
        with r.share() as s:
            assert bytes(s) == expected
        with r.borrow_mut(0, 1) as m:
            m[0] = 99
        with r.share() as s:
            assert s[0] == 99
            assert s[1:] == expected[1:]


def test_a_split_of_an_unaligned_range_is_on_a_page_of_the_mapping(file: Path) -> None:
    content = file.read_bytes()
    r = tether.Region.open(file, offset=100)
    with pytest.raises(ValueError, match="boundary"):
        r.split_at(PAGE)
    left, right = r.split_at(PAGE - 100)
    with left.share() as a, right.share() as b:
        assert bytes(a) == content[100:PAGE]
        assert bytes(b) == content[PAGE:]
    with left.merge(right).share() as s:
        assert bytes(s) == content[100:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offset": 3 * PAGE + 4}, "outside"),
        ({"offset": -1}, "outside"),
        ({"offset": 2**63}, None),
        ({"length": 3 * PAGE + 4}, "length"),
        ({"offset": 1, "length": 3 * PAGE + 3}, "length"),
        ({"length": -1}, "length"),
        ({"length": 2**63}, None),
        ({"length": 0}, "nothing to map"),
        ({"offset": 3 * PAGE + 3}, "nothing to map"),
        ({"mode": "w"}, "mode"),
        ({"mode": "rb"}, "mode"),
        ({"mode": ""}, "mode"),
    ],
)
def test_a_range_outside_of_the_file_is_a_value_error(file: Path, arguments: dict[str, object], message: str) -> None:
    before = descriptors()
    with pytest.raises(ValueError, match=message):  # fault 24
        tether.Region.open(file, **arguments)  # type: ignore[arg-type]
    assert tether.statistics().regions == 0
    assert descriptors() == before


def test_types_of_what_is_opened_are_checked(file: Path) -> None:
    for arguments in ((1,), (None,), (file, 1), (file, "r", "0"), (file, "r", 0, "1"), (file, "r", None), ()):
        with pytest.raises(TypeError):
            tether.Region.open(*arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name"):
        tether.Region.open(file, name=1)  # type: ignore[arg-type]


@pytest.mark.thread_unsafe(reason="counts the descriptors of the process")
def test_what_cannot_be_mapped_says_so(tmp_path: Path) -> None:
    before = descriptors()
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError) as missing:  # fault 24
        tether.Region.open(tmp_path / "missing")
    assert missing.value.filename == tmp_path / "missing"
    with pytest.raises(IsADirectoryError) as directory:
        tether.Region.open(tmp_path)
    assert directory.value.filename == tmp_path
    with pytest.raises(IsADirectoryError):
        tether.Region.open(tmp_path, "r+")
    with pytest.raises(ValueError, match="no bytes"):
        tether.Region.open(tmp_path / "empty")
    for strange in (tmp_path / "pipe", "/dev/null"):
        for mode in ("r", "r+"):
            with pytest.raises(ValueError, match="not a regular file"):
                tether.Region.open(strange, mode)
    with pytest.raises(OSError) as long:
        tether.Region.open("x" * 5000)
    assert long.value.errno == errno.ENAMETOOLONG
    with pytest.raises(ValueError, match="null"):
        tether.Region.open("a\0b")
    assert descriptors() == before


@pytest.mark.parametrize("convert", [str, os.fsencode, Path])
def test_a_path_is_text_bytes_or_path_like(tmp_path: Path, convert: type) -> None:
    path = tmp_path / os.fsdecode("odd \n ü \udcff")  # also where a bytes path warns when it is made a str
    path.write_bytes(b"content")
    with tether.Region.open(convert(path)) as r, r.share() as s:
        assert bytes(s) == b"content"
        assert r.name == str(path)
        repr(r)


def test_the_name_given_is_in_errors(file: Path) -> None:
    with tether.Region.open(file, name="table") as r, r.share():
        assert r.name == "table"
        with pytest.raises(tether.BorrowError, match="cannot close region 'table'"):
            r.close()


@pytest.mark.thread_unsafe(reason="removes its file")
def test_a_file_that_is_gone_stays_mapped(file: Path) -> None:
    content = file.read_bytes()
    with tether.Region.open(file) as r:
        file.unlink()
        with r.share() as s:
            assert bytes(s) == content


@pytest.mark.thread_unsafe(reason="truncates its file")
def test_a_truncated_file_is_a_documented_limit(run_python: RunPython, file: Path) -> None:
    assert "SIGBUS" in (tether.Region.open.__doc__ or "")
    code = """
    import os, resource, sys, tether
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    r = tether.Region.open(sys.argv[1])
    os.truncate(sys.argv[1], 1)
    s = r.share()
    assert s[0] == 0 and s[100] == 0  # the page that is still there
    print("ready", flush=True)
    s[-1]
    """
    path = str(file)
    ran = run_python(code.replace("sys.argv[1]", repr(path)))  # fault 24
    assert ran.out == "ready\n"
    assert ran.rc == -7
