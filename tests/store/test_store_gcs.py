"""Objects in a bucket: the same functions, checks both ways, faults that heal, and errors that a person can mend."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from stratos_jax import cli, store
from stratos_jax.store import gcs, jsonl, manifest
from stratos_jax.types import UserError

ROOT = "gs://test-bucket"
LARGE = os.urandom(9 << 20)  # beyond one request: a resumable upload


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """The same retries, sooner."""
    monkeypatch.setattr(gcs, "RETRY", gcs.RETRY.with_delay(initial=0.02, maximum=1.0, multiplier=2.0))


def names(server, prefix=""):
    """What is in the bucket."""
    return [found.name for found in server.objects.listing("test-bucket", {"prefix": prefix})[0]]


def test_write_read_stat_and_list(fake_gcs):
    url = f"{ROOT}/a/b c.txt"
    store.write_text(url, "hello")
    found = store.stat(url)
    assert found is not None and (found.url, found.bytes, found.crc32c) == (url, 5, "mnG7TA==") and found.generation
    assert store.read_text(url) == "hello" and store.read_bytes(url, 1, 3) == b"el"
    assert store.read_bytes(url, 5, 9) == store.read_bytes(url, 2, 2) == b""
    assert store.exists(url) and not store.exists(url + "x") and not store.exists(f"{ROOT}/a")
    store.write_bytes(f"{ROOT}/ab", b"")
    assert [file.url for file in store.list_files(f"{ROOT}/a")] == [url], "a folder, not a prefix of names"
    assert store.list_files(url) == [found] and len(store.list_files(ROOT)) == 2
    store.delete_tree(f"{ROOT}/a")
    store.delete_tree(f"{ROOT}/a")
    assert names(fake_gcs) == ["ab"] and store.read_bytes(f"{ROOT}/ab") == b""


def test_reader_is_buffered_seekable_and_of_one_version(fake_gcs):
    store.write_bytes(f"{ROOT}/x", LARGE)
    with store.open_read(f"{ROOT}/x") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == LARGE[-5:]
        file.seek(0)
        assert file.read(100) == LARGE[:100]
        store.write_bytes(f"{ROOT}/x", b"new")
        assert file.read(5) == LARGE[100:105], "from the buffer"
        file.seek(8 << 20)
        with pytest.raises(store.Missing):  # the old version is gone: never a mix of two
            file.read()


def test_many_pages_of_a_listing(fake_gcs):
    from fake_gcs.objects import Body

    for i in range(2300):
        fake_gcs.objects.insert("test-bucket", f"many/{i:05}", Body(), {}, {})
    assert len(store.list_files(f"{ROOT}/many")) == 2300
    assert len([1 for method, path, _ in fake_gcs.requests if "/o?" in path]) == 3


def test_large_objects_go_up_in_chunks(fake_gcs, monkeypatch):
    monkeypatch.setattr(gcs, "CHUNK", 2 << 20)
    store.write_bytes(f"{ROOT}/x", LARGE)
    assert [status for method, _, status in fake_gcs.requests if method == "PUT"] == [308] * 4 + [200]
    assert store.read_bytes(f"{ROOT}/x") == LARGE


def test_create_only(fake_gcs):
    store.write_text(f"{ROOT}/lease", "1", create_only=True)
    for text in ("2", "1"):  # the same bytes from another writer are no success, either
        with pytest.raises(store.AlreadyExists):
            store.write_text(f"{ROOT}/lease", text, create_only=True)
    assert store.read_text(f"{ROOT}/lease") == "1"


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_create_only_knows_its_own_write_when_the_reply_is_lost(fake_gcs, data):
    fake_gcs.faults.add("drop_reply", "POST" if len(data) < 100 else "PUT")
    store.write_bytes(f"{ROOT}/lease", data, create_only=True)
    assert store.read_bytes(f"{ROOT}/lease") == data
    if len(data) < 100:
        assert 412 in [status for _, _, status in fake_gcs.requests], "the repetition met the object"


STATUS = [("status", {"status": status}) for status in (408, 429, 500, 502, 503, 504)]
WIRE = [(kind, {}) for kind in ("reset", "drop_reply", "reset_reply", "truncate")]


@pytest.mark.parametrize("kind, options", STATUS + WIRE, ids=lambda value: str(value))
def test_faults_on_the_way_heal(fake_gcs, kind, options):
    for work in (
        lambda: store.write_bytes(f"{ROOT}/new/x", b"abc" * 1000),
        lambda: store.write_bytes(f"{ROOT}/new/y", b"abc", create_only=True),
        lambda: store.read_bytes(f"{ROOT}/new/x") == b"abc" * 1000 or pytest.fail("other bytes"),
        lambda: store.open_read(f"{ROOT}/new/x").read() == b"abc" * 1000 or pytest.fail("other bytes"),
        lambda: len(store.list_files(f"{ROOT}/new")) == 2 or pytest.fail("other files"),
        lambda: store.delete_tree(f"{ROOT}/new"),
    ):
        rule = fake_gcs.faults.add(kind, **options)
        work()
        assert rule.fired == 1
        fake_gcs.faults.clear()
    assert names(fake_gcs) == []


@pytest.mark.parametrize("kind", ["status", "reset", "drop_reply", "reset_reply", "truncate"])
def test_faults_in_the_middle_of_large_files_heal(fake_gcs, kind, monkeypatch, tmp_path):
    monkeypatch.setattr(gcs, "CHUNK", 2 << 20)
    monkeypatch.setattr(store.transfer, "BIG", 8 << 20)
    store.write_bytes(tmp_path / "in/x", LARGE)
    rules = [fake_gcs.faults.add(kind, "^PUT", chance=0.5, times=2), fake_gcs.faults.add(kind, "alt=media", times=2)]
    store.upload_tree(tmp_path / "in", f"{ROOT}/tree")
    store.download_tree(f"{ROOT}/tree", tmp_path / "out")
    assert (tmp_path / "out/x").read_bytes() == LARGE and all(rule.fired for rule in rules)


def test_bytes_damaged_on_the_way_up_or_down_are_sent_again(fake_gcs, monkeypatch, tmp_path):
    monkeypatch.setattr(store.transfer, "BIG", 8 << 20)
    for data in (b"abc" * 1000, LARGE):
        up = fake_gcs.faults.add("damage_upload", "upload_id" if len(data) > 9000 else "uploadType=multipart")
        store.write_bytes(f"{ROOT}/d/x", data)
        assert up.fired and store.stat(f"{ROOT}/d/x").crc32c == store.checksum.crc32c(data)
        down = fake_gcs.faults.add("damage", "alt=media")
        assert store.read_bytes(f"{ROOT}/d/x") == data and down.fired
        fake_gcs.faults.add("damage", "alt=media")
        store.download_tree(f"{ROOT}/d", tmp_path / str(len(data)), complete_only=False)
        assert (tmp_path / str(len(data)) / "x").read_bytes() == data
    fake_gcs.faults.add("damage", "alt=media", times=None)
    for read in (store.read_bytes, lambda url: store.open_read(url).read()):
        with pytest.raises(UserError, match="damaged"):
            read(f"{ROOT}/d/x")


def test_a_resumed_download_is_still_checked(fake_gcs):
    """The client library leaves what it had to resume unchecked."""
    store.write_bytes(f"{ROOT}/x", LARGE)
    fake_gcs.faults.add("truncate", "alt=media")
    damage = fake_gcs.faults.add("damage", "alt=media")
    assert store.read_bytes(f"{ROOT}/x") == LARGE and damage.fired


def tree(folder, number=30):
    """A small folder."""
    for i in range(number):
        store.write_bytes(folder / f"d{i % 3}/f{i}", os.urandom(100 * i))
    return folder


def uploads(server):
    """How many objects were sent since the log was cleared."""
    return len([1 for method, path, _ in server.requests if method == "POST" and path.startswith("/upload")])


def test_trees_both_ways_send_only_what_is_missing(fake_gcs, tmp_path):
    tree(tmp_path / "in")
    made = store.upload_tree(tmp_path / "in", f"{ROOT}/t")
    assert fake_gcs.requests[-1][1].startswith("/upload") and len(names(fake_gcs)) == 31
    assert manifest.verify(f"{ROOT}/t") == manifest.verify(f"{ROOT}/t", deep=True) == []
    fake_gcs.requests.clear()
    assert store.upload_tree(tmp_path / "in", f"{ROOT}/t") == made and uploads(fake_gcs) == 0
    assert store.download_tree(f"{ROOT}/t", tmp_path / "out") == made
    assert manifest.verify(tmp_path / "out", deep=True) == []
    (tmp_path / "out/d0/f3").unlink()
    fake_gcs.requests.clear()
    store.download_tree(f"{ROOT}/t", tmp_path / "out")
    media = [path for _, path, _ in fake_gcs.requests if "alt=media" in path and "manifest" not in path]
    assert len(media) == 1 and manifest.verify(tmp_path / "out", deep=True) == []
    store.delete_tree(f"{ROOT}/t")
    first = next(path for method, path, _ in fake_gcs.requests if method == "DELETE")
    assert "manifest.json" in first and names(fake_gcs) == []


def test_a_tree_without_manifest_is_not_complete(fake_gcs, tmp_path):
    store.upload_tree(tree(tmp_path / "in", 5), f"{ROOT}/t")
    store.delete_tree(f"{ROOT}/t/manifest.json")
    with pytest.raises(UserError, match="not complete"):
        store.download_tree(f"{ROOT}/t", tmp_path / "out")
    store.download_tree(f"{ROOT}/t", tmp_path / "out", complete_only=False)
    assert len(store.list_files(tmp_path / "out")) == 5 and manifest.read_manifest(tmp_path / "out") is None


def test_other_files_in_the_way_are_refused_or_replaced(fake_gcs, tmp_path):
    store.upload_tree(tree(tmp_path / "in", 5), f"{ROOT}/t")
    store.write_text(tmp_path / "in/d0/f0", "changed")
    os.remove(tmp_path / "in/d1/f1")
    with pytest.raises(UserError, match="holds other files"):
        store.upload_tree(tmp_path / "in", f"{ROOT}/t")
    assert manifest.verify(f"{ROOT}/t") == []
    fake_gcs.requests.clear()
    store.upload_tree(tmp_path / "in", f"{ROOT}/t", replace=True)
    assert manifest.verify(f"{ROOT}/t", deep=True) == [] and uploads(fake_gcs) == 2
    changes = [path for method, path, _ in fake_gcs.requests if method in ("DELETE", "POST")]
    assert "manifest.json" in changes[0] and "manifest.json" not in "".join(changes[1:]), "unmarked first"


def test_two_uploaders_at_once(fake_gcs, tmp_path):
    """The same folder twice is fine; two different ones are not mixed."""
    tree(tmp_path / "a", 5)
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    store.write_text(tmp_path / "c/d0/f0", "other")

    def race(first, second):
        """Upload `second` when `first` has listed the place and sent its first file."""
        real, done = store.transfer._put, []

        def put(path, url, file):
            if not done:
                done.append(1)
                store.upload_tree(second, f"{ROOT}/t")
            real(path, url, file)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.transfer, "_put", put)
            patch.setattr(store.files, "WORKERS", 1)
            store.upload_tree(first, f"{ROOT}/t")

    race(tmp_path / "a", tmp_path / "b")
    assert manifest.verify(f"{ROOT}/t", deep=True) == []
    store.delete_tree(f"{ROOT}/t")
    with pytest.raises(UserError, match="already there"):
        race(tmp_path / "a", tmp_path / "c")
    assert manifest.verify(f"{ROOT}/t", deep=True) == [] and store.read_text(f"{ROOT}/t/d0/f0") == "other"


def test_names_that_lead_out_of_the_folder_are_refused(fake_gcs, tmp_path):
    store.write_bytes(f"{ROOT}/t/../../evil", b"x")
    with pytest.raises(UserError, match="lead out"):
        store.download_tree(f"{ROOT}/t", tmp_path / "out", complete_only=False)
    assert not (tmp_path.parent / "evil").exists()


def test_verify_a_bucket_by_listing_only_and_by_reading(fake_gcs, tmp_path, capsys):
    store.upload_tree(tree(tmp_path / "in", 5), f"{ROOT}/t")
    fake_gcs.requests.clear()
    assert cli.main(["verify", f"{ROOT}/t"]) == 0
    assert [p for _, p, _ in fake_gcs.requests if "alt=media" in p and "manifest" not in p] == []
    assert cli.main(["verify", f"{ROOT}/t", "--deep", "--json"]) == 0
    fake_gcs.objects.delete("test-bucket", "t/d0/f3", {})
    store.write_bytes(f"{ROOT}/t/d1/f1", b"y" * 100)  # the size is right
    capsys.readouterr()
    assert cli.main(["verify", f"{ROOT}/t", "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) == 2 and "d0/f3: missing" in problems and "crc32c" in "".join(problems)


def test_jsonl_in_a_bucket(fake_gcs):
    assert jsonl.write_jsonl(f"{ROOT}/r.jsonl", ({"i": i} for i in range(100))) == 100
    assert [row["i"] for _, row in jsonl.read_jsonl(f"{ROOT}/r.jsonl")] == list(range(100))
    with pytest.raises(UserError, match="append locally"):
        jsonl.JsonlAppender(f"{ROOT}/r.jsonl")


@pytest.mark.parametrize(
    "status, text", [(401, "does not accept the credentials"), (403, "no permission"), (400, "refuses the request")]
)
def test_refusals_are_one_clear_error(fake_gcs, status, text, tmp_path):
    tree(tmp_path / "in", 3)
    fake_gcs.faults.add("status", status=status, times=None)
    for work in (
        lambda: store.write_bytes(f"{ROOT}/x", b"x"),
        lambda: store.write_bytes(f"{ROOT}/x", LARGE),
        lambda: store.read_bytes(f"{ROOT}/x"),
        lambda: store.open_read(f"{ROOT}/x"),
        lambda: store.list_files(f"{ROOT}/x"),
        lambda: store.upload_tree(tmp_path / "in", f"{ROOT}/x"),
        lambda: store.download_tree(f"{ROOT}/x", tmp_path / "out"),
    ):
        with pytest.raises(UserError, match=text):
            work()


def test_missing_bucket_and_file(fake_gcs, tmp_path, capsys):
    for work in (
        store.read_bytes,
        store.stat,
        store.list_files,
        store.open_read,
        lambda url: store.write_bytes(url, b""),
    ):
        with pytest.raises(UserError, match="no such bucket"):
            work("gs://no-such-bucket/x")
    with pytest.raises(UserError, match="not a bucket's name"):
        store.read_bytes("gs://No_Bucket!/x")
    for work in (store.read_bytes, store.open_read, store.list_files):
        with pytest.raises(store.Missing):
            work(f"{ROOT}/x")
    with pytest.raises(UserError, match="whole bucket"):
        store.delete_tree(ROOT)
    assert cli.main(["verify", "gs://no-such-bucket/x"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no such bucket")


def test_wrong_credentials_file(fake_gcs, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    (tmp_path / "key.json").write_text('{"type": "service_account"}')
    for key in (tmp_path / "key.json", tmp_path / "nothing.json"):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        assert cli.main(["verify", f"{ROOT}/x"]) == 2
        error = capsys.readouterr().err
        assert "does not accept the credentials" in error and "GOOGLE_APPLICATION_CREDENTIALS" in error


def test_a_service_that_never_answers_is_given_up(fake_gcs, monkeypatch):
    monkeypatch.setattr(gcs, "RETRY", gcs.RETRY.with_timeout(1.0))
    fake_gcs.faults.add("status", status=503, times=None)
    with pytest.raises(UserError, match="does not answer"):
        store.read_bytes(f"{ROOT}/x")
    fake_gcs.shutdown()
    fake_gcs.server_close()
    with pytest.raises(UserError, match="does not answer|transfer failed"):
        store.list_files(f"{ROOT}/x")


def test_a_full_disk_while_downloading(fake_gcs, tmp_path):
    store.upload_tree(tree(tmp_path / "in", 3), f"{ROOT}/t")
    store.write_bytes(tmp_path / "big/x", LARGE)
    store.upload_tree(tmp_path / "big", f"{ROOT}/big")
    code = (
        "import resource, sys; from stratos_jax import store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "store.transfer.BIG = int(sys.argv[3])\n"
        "try: store.download_tree(sys.argv[1], sys.argv[2])\n"
        "except store.errors.UserError as error: print(error); sys.exit(2)\n"
    )
    for big in (1 << 20, 1 << 30):
        out = tmp_path / f"out{big}"
        argv = [sys.executable, "-c", code, f"{ROOT}/big", str(out), str(big)]
        ran = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert ran.returncode == 2 and "larger than this disk" in ran.stdout, ran
        assert os.listdir(out) == []
