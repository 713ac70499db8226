"""The clients that the project uses, real ones, work against the fake: TensorStore, gcsfs, ArrayRecord, Orbax."""

import os
import subprocess
import sys

import numpy as np
import pytest

from stratos_jax import store

# These clients leave sockets and event loops to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_tensorstore_reads_writes_conditionally_and_deletes_only_its_range(fake_gcs):
    import tensorstore as ts

    store.write_text("gs://test-bucket/other", "stays")
    spec = {"driver": "gcs", "bucket": "test-bucket", "path": "ts/"}
    kv = ts.KvStore.open(spec).result()
    kv["a"], kv["b/c"] = b"hey", b"you"
    found = kv.read("a").result()
    assert found.value == b"hey" and sorted(kv.list().result()) == [b"a", b"b/c"]
    assert kv.read("none").result().state == "missing"
    stamp = kv.write("a", b"two", if_equal=found.stamp.generation).result()
    assert stamp.generation != found.stamp.generation and kv["a"] == b"two"
    kv.write("a", b"three", if_equal=found.stamp.generation).result()
    assert kv["a"] == b"two", "a write that expects the old version changes nothing"
    kv.delete_range(ts.KvStore.KeyRange("a", "b")).result()
    assert kv.list().result() == [b"b/c"]
    kv.delete_range(ts.KvStore.KeyRange()).result()
    assert store.read_text("gs://test-bucket/other") == "stays" and kv.list().result() == []


@pytest.mark.parametrize("driver", ["zarr3", "zarr"])
def test_tensorstore_arrays_through_ocdbt_with_faults(fake_gcs, driver):
    import tensorstore as ts

    value = np.random.default_rng(0).normal(size=(64, 33))
    base = {"driver": "gcs", "bucket": "test-bucket", "path": "db/"}
    spec = {"driver": driver, "kvstore": {"driver": "ocdbt", "base": base}}
    fake_gcs.faults.add("status", "POST", status=503)
    array = ts.open(spec, create=True, dtype=ts.float64, shape=value.shape).result()
    array.write(value).result()
    fake_gcs.faults.add("status", "GET", status=429)
    np.testing.assert_array_equal(ts.open(spec).result().read().result(), value)


def test_gcsfs_files_folders_and_create_only(fake_gcs):
    import gcsfs

    fs = gcsfs.GCSFileSystem(token="anon", use_listings_cache=False, skip_instance_cache=True)
    fs.pipe_file("test-bucket/d/x", b"123")
    with fs.open("test-bucket/d/big", "wb", block_size=1 << 20) as file:
        file.write(bytes(3 << 20))
    assert fs.cat_file("test-bucket/d/x", 1, 3) == b"23" and fs.size("test-bucket/d/big") == 3 << 20
    assert store.read_bytes("gs://test-bucket/d/x") == b"123"
    fs.mv("test-bucket/d/x", "test-bucket/d/y")
    assert fs.ls("test-bucket/d") == ["test-bucket/d/big", "test-bucket/d/y"] and not fs.exists("test-bucket/d/x")
    with pytest.raises(FileExistsError):
        fs.pipe_file("test-bucket/d/y", b"456", mode="create")
    fs.rm("test-bucket/d", recursive=True)
    assert fs.ls("test-bucket") == []


def test_epath_sees_what_the_store_wrote(fake_gcs):
    from etils import epath

    store.write_text("gs://test-bucket/p/x.txt", "hello")
    path = epath.Path("gs://test-bucket/p")
    assert (path / "x.txt").read_text() == "hello" and [found.name for found in path.iterdir()] == ["x.txt"]
    (path / "y.txt").write_text("bye")
    assert store.read_text("gs://test-bucket/p/y.txt") == "bye"


def test_arrayrecord_reads_natively(fake_gcs, tmp_path):
    """In a process of its own with a limit: the C++ client waits for ever where it finds no server."""
    records = [os.urandom(500) for _ in range(200)]
    store.arrayrecord.write_arrayrecord(tmp_path / "in/x", records)
    store.upload_tree(tmp_path / "in", "gs://test-bucket/ar")
    code = (
        "import sys; from array_record.python.array_record_module import ArrayRecordReader\n"
        "reader = ArrayRecordReader('gs://test-bucket/ar/x')\n"
        "sys.stdout.write(f'{reader.num_records()} {reader.read([7])[0].hex()}')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert ran.stdout == f"200 {records[7].hex()}"


ORBAX = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from orbax.checkpoint import v1 as ocp
axes = (jax.sharding.AxisType.Auto,)
def mesh(n): return jax.make_mesh((n,), ("fsdp",), axis_types=axes, devices=jax.devices()[:n])
def tree(m, make): return {k: make(s, NamedSharding(m, P("fsdp"))) for k, s in (("w", (16, 8)), ("b", (8,)))}
root = "gs://test-bucket/ckpt"
state = tree(mesh(8), lambda s, h: jax.device_put(np.arange(np.prod(s), dtype=np.float32).reshape(s), h))
with ocp.training.Checkpointer(root) as saver:
    for step in (1, 2):
        saver.save(step, {k: v * step for k, v in state.items()}, force=True)
with ocp.training.Checkpointer(root) as reader:
    assert [c.step for c in reader.checkpoints] == [1, 2], reader.checkpoints
    abstract = tree(mesh(4), lambda s, h: jax.ShapeDtypeStruct(s, np.float32, sharding=h))
    back = reader.load(2, abstract)
for k in state:
    np.testing.assert_array_equal(np.asarray(back[k]), np.asarray(state[k]) * 2)
    assert len(back[k].sharding.device_set) == 4
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("faults", [False, True])
def test_orbax_saves_and_restores_on_another_mesh(fake_gcs, faults):
    if faults:
        fake_gcs.faults.add("status", "GET|POST", status=503, times=20, chance=0.1)
        fake_gcs.faults.add("status", "GET|POST", status=429, times=20, chance=0.05)
    ran = subprocess.run([sys.executable, "-c", ORBAX], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0 and ran.stdout.endswith("same\n"), ran.stderr[-3000:]
    assert any("ocdbt" in path for _, path, _ in fake_gcs.requests)
