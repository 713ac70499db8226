"""Local files: atomic and create-only writes, listings, JSONL, ArrayRecord, and one clear error for each mishap."""

import errno
import os
import shutil
import subprocess
import sys
import threading

import pytest

from stratos_jax import store
from stratos_jax.store import arrayrecord, jsonl
from stratos_jax.types import Trace, UserError


def test_write_read_stat_and_list(tmp_path):
    store.write_text(tmp_path / "a" / "b.txt", "grüß")
    assert store.read_text(tmp_path / "a/b.txt") == "grüß"
    assert store.read_bytes(tmp_path / "a/b.txt", 1, 3) == b"r\xc3"
    assert store.read_bytes(tmp_path / "a/b.txt", 100) == b""
    assert store.exists(tmp_path / "a/b.txt") and not store.exists(tmp_path / "a") and not store.exists(tmp_path / "x")
    found = store.stat(tmp_path / "a/b.txt")
    assert found is not None and found.bytes == 6 and found.crc32c is None
    assert [file.url for file in store.list_files(tmp_path)] == [str(tmp_path / "a/b.txt")]
    with store.open_read(tmp_path / "a/b.txt") as file:
        file.seek(-1, os.SEEK_END)
        assert file.read() == b"\x9f"


def test_join():
    assert store.join("gs://b/x/", "y", "z.txt") == "gs://b/x/y/z.txt"
    assert store.join("/d", "y", "z") == "/d/y/z"


@pytest.mark.parametrize("url", ["gs:/bucket/x", "s3://bucket/x", "http://x/y"])
def test_urls_of_other_kinds_are_refused(url):
    with pytest.raises(UserError):
        store.read_bytes(url)


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    store.write_text(tmp_path / "f", "old")
    with pytest.raises(RuntimeError), store.atomic_path(tmp_path / "f") as temporary:
        temporary.write_text("new")
        assert [file.url for file in store.list_files(tmp_path)] == [str(tmp_path / "f")], (
            "half-written files are unseen"
        )
        raise RuntimeError
    assert os.listdir(tmp_path) == ["f"] and store.read_text(tmp_path / "f") == "old"


def test_atomic_folder(tmp_path):
    with store.atomic_path(tmp_path / "d") as temporary:
        temporary.mkdir()
        (temporary / "x").write_text("1")
    assert store.read_text(tmp_path / "d/x") == "1"


def test_create_only_has_one_winner_among_many(tmp_path):
    wins, start = [], threading.Barrier(8)

    def write(i):
        start.wait()
        try:
            store.write_text(tmp_path / "lease", str(i), create_only=True)
            wins.append(i)
        except store.AlreadyExists:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(wins) == 1 and store.read_text(tmp_path / "lease") == str(wins[0])


def test_missing_file_folder_and_part_of_a_path(tmp_path):
    with pytest.raises(store.Missing, match="no such file"):
        store.read_bytes(tmp_path / "x")
    with pytest.raises(store.Missing):
        store.list_files(tmp_path / "x")
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError):
        store.write_bytes(tmp_path / "f" / "g", b"")
    with pytest.raises(UserError, match="a folder, not a file"):
        store.read_bytes(tmp_path)


def test_delete_tree_refuses_home_and_root(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("/", tmp_path):
        with pytest.raises(UserError):
            store.delete_tree(place)
    store.write_text(tmp_path / "d/x", "")
    store.delete_tree(tmp_path / "d")
    store.delete_tree(tmp_path / "d")
    assert not os.listdir(tmp_path)


def test_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    """A limit on the size of files stands for the disk: it needs no root."""
    code = (
        "import resource, sys; from stratos_jax import store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "writers = {'bytes': lambda p: store.write_bytes(p, bytes(10000)),\n"
        "           'jsonl': lambda p: store.jsonl.write_jsonl(p, ({'x': 'y' * 100} for _ in range(1000))),\n"
        "           'append': lambda p: [store.jsonl.JsonlAppender(p).append({'x': 'y' * 9000})]}\n"
        "try: writers[sys.argv[1]](sys.argv[2])\n"
        "except store.errors.UserError as error: print(error); sys.exit(2)\n"
    )
    for kind in ("bytes", "jsonl", "append"):
        ran = subprocess.run([sys.executable, "-c", code, kind, str(tmp_path / kind)], capture_output=True, text=True)
        assert ran.returncode == 2 and "larger than this disk" in ran.stdout, ran
    assert os.listdir(tmp_path) == ["append"] and not os.path.getsize(tmp_path / "append")


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 1 MB in a user namespace of its own, where the system allows that."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        return
    code = (
        "import sys; from stratos_jax import store\n"
        "for i, write in enumerate((lambda p: store.write_bytes(p, bytes(2 << 20)),\n"
        "              lambda p: [store.jsonl.JsonlAppender(p).append({'x': 'y' * (2 << 20)})],\n"
        "              lambda p: store.arrayrecord.write_arrayrecord(p, [__import__('os').urandom(2 << 20)]))):\n"
        "    try: write(f'{sys.argv[1]}/{i}')\n"
        "    except store.errors.UserError as error: print(error)\n"
    )
    mount = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", mount, code], capture_output=True, text=True, check=True)
    assert ran.stdout.count("no space left on the disk") == 3, ran


@pytest.mark.parametrize(
    "number, text", [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only")]
)
def test_what_the_system_refuses_has_words(tmp_path, number, text):
    with pytest.raises(UserError, match=text), store.atomic_path(tmp_path / "f") as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert not os.listdir(tmp_path)


def test_jsonl_both_ways_with_records_and_lone_surrogates(tmp_path):
    trace = Trace(
        id="t", problem_id="p", sample_index=0, model="m", reasoning="r\u2028\ud800", solution="s", finish_reason="stop"
    )
    assert jsonl.write_jsonl(tmp_path / "r.jsonl", [trace, {"a": [1, None]}]) == 2
    rows = list(jsonl.read_jsonl(tmp_path / "r.jsonl"))
    assert [number for number, _ in rows] == [1, 2]
    assert rows[0][1]["reasoning"] == "r\u2028\ud800" and rows[1][1] == {"a": [1, None]}


@pytest.mark.parametrize("line", [b'{"a": 1', b"[1]", b"\xff{}", b"nope"])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "r.jsonl").write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(UserError, match=r"r\.jsonl:3"):
        list(jsonl.read_jsonl(tmp_path / "r.jsonl"))


@pytest.mark.parametrize("cut", range(1, 9))
def test_appender_cuts_a_torn_line_and_keeps_the_whole_ones(tmp_path, cut):
    path = tmp_path / "r.jsonl"
    with jsonl.JsonlAppender(path) as out:
        out.append({"a": 1})
        out.append({"b": 2})
    path.write_bytes(path.read_bytes()[:-cut])
    with jsonl.JsonlAppender(path) as out:
        out.append({"c": 3})
    kept = [{"b": 2}] if cut == 1 else []  # only the newline was lost: the record is whole
    assert [row for _, row in jsonl.read_jsonl(path)] == [{"a": 1}, *kept, {"c": 3}]


def test_appender_long_torn_tail_and_second_writer(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": "' + b"x" * 200_000)
    with jsonl.JsonlAppender(path), pytest.raises(UserError, match="another process"):
        jsonl.JsonlAppender(path)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_appender_from_many_threads(tmp_path):
    with jsonl.JsonlAppender(tmp_path / "r.jsonl") as out:
        threads = [
            threading.Thread(target=lambda i=i: [out.append({"i": i, "x": "y" * 5000}) for _ in range(20)])
            for i in range(8)
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert len(list(jsonl.read_jsonl(tmp_path / "r.jsonl"))) == 160


def test_arrayrecord_by_index(tmp_path):
    records = [os.urandom(50 + i) for i in range(300)]
    assert arrayrecord.write_arrayrecord(tmp_path / "x.array_record", iter(records)) == 300
    file = arrayrecord.ArrayRecordFile(tmp_path / "x.array_record")
    assert len(file) == 300 and file[7] == records[7] and file[-1] == records[-1]
    assert file.read([299, 0, 5]) == [records[299], records[0], records[5]] and list(file) == records
    with pytest.raises(IndexError):
        file[300]


def test_arrayrecord_that_is_cut_or_damaged_is_refused(tmp_path):
    arrayrecord.write_arrayrecord(tmp_path / "x", [os.urandom(1000) for _ in range(500)])
    whole = (tmp_path / "x").read_bytes()
    for broken in (whole[:100_000], os.urandom(200_000)):
        (tmp_path / "y").write_bytes(broken)
        with pytest.raises(UserError, match="damaged"):
            arrayrecord.ArrayRecordFile(tmp_path / "y")
    flipped = bytearray(whole)
    flipped[200_000] ^= 1
    (tmp_path / "y").write_bytes(flipped)
    with pytest.raises(UserError, match="cannot be read"):
        list(arrayrecord.ArrayRecordFile(tmp_path / "y"))
    assert len(arrayrecord.ArrayRecordFile(tmp_path / "x")) == 500
    with pytest.raises(store.Missing):
        arrayrecord.ArrayRecordFile(tmp_path / "z")
    arrayrecord.write_arrayrecord(tmp_path / "none", [])
    assert len(arrayrecord.ArrayRecordFile(tmp_path / "none")) == 0


def test_the_room_imports_without_heavy_packages():
    heavy = "('jax', 'google.cloud.storage', 'array_record')"
    code = f"import sys, stratos_jax.store; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
