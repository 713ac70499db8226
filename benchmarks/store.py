"""The store beside gcsfs: many small files and one large one, up and down, against a fake GCS process on loopback.

python benchmarks/store.py [--small 2000] [--large-mib 1024] [--repeats 3] [--json]

The server is another process, with large bodies on disk. Both sides do the same work in turns, in this process: a
folder up, the same folder down. Ours also makes a manifest (sha256 and crc32c of every byte), checks every file that
arrives, and lists the bucket before and after; gcsfs does as it comes, with its own defaults.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--small-kib", type=int, default=16)
    parser.add_argument("--large-mib", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows = measure(folder, args)
    print(json.dumps(rows, indent=1) if args.json else table(rows))


def measure(folder: pathlib.Path, args: argparse.Namespace) -> list[dict]:
    """All figures: one row for each kind of work and direction."""
    make(folder / "small", args.small, args.small_kib << 10)
    make(folder / "large", 1, args.large_mib << 20)
    (folder / "server").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "fake_gcs", "--directory", str(folder / "server")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout
            point_clients_at(server.stdout.readline().strip())
            warm_up()
            times: dict[tuple[str, str, str], list[float]] = {}
            for repeat in range(args.repeats):
                for kind in ("small", "large"):
                    sides = [("ours", ours), ("gcsfs", gcsfs_side)]
                    for side, work in sides if repeat % 2 == 0 else sides[::-1]:
                        for direction, seconds in work(folder, kind, f"{side}-{kind}-{repeat}"):
                            times.setdefault((kind, direction, side), []).append(seconds)
                            print(f"{repeat} {kind} {direction} {side}: {seconds:.2f} s", file=sys.stderr, flush=True)
        finally:
            server.kill()
    counts = {"small": (args.small, args.small * args.small_kib * 1024), "large": (1, args.large_mib << 20)}
    return [row(kind, direction, *counts[kind], times) for kind in counts for direction in ("up", "down")]


def row(kind: str, direction: str, number: int, size: int, times: dict) -> dict:
    """Medians of both sides, and the median of the ratios of pairs."""
    mine, theirs = times[kind, direction, "ours"], times[kind, direction, "gcsfs"]
    figures = {"work": f"{number} x {size // number} bytes, {direction}"}
    for side, seconds in (("ours", mine), ("gcsfs", theirs)):
        median = statistics.median(seconds)
        figures |= {f"{side}_s": round(median, 2), f"{side}_MB_per_s": round(size / median / 1e6, 1)}
        figures[f"{side}_files_per_s"] = round(number / median, 1)
    figures["times_as_fast"] = round(statistics.median(t / m for m, t in zip(mine, theirs, strict=True)), 2)
    return figures


def ours(folder: pathlib.Path, kind: str, name: str):
    """Upload and download through the store."""
    from stratos_jax import store

    start = time.perf_counter()
    store.upload_tree(folder / kind, f"gs://test-bucket/{name}")
    yield "up", time.perf_counter() - start
    start = time.perf_counter()
    store.download_tree(f"gs://test-bucket/{name}", folder / name)
    yield "down", time.perf_counter() - start
    clean(folder, kind, name)


def gcsfs_side(folder: pathlib.Path, kind: str, name: str):
    """Upload and download through gcsfs."""
    import gcsfs

    fs = gcsfs.GCSFileSystem(token="anon", use_listings_cache=False)
    start = time.perf_counter()
    fs.put(f"{folder / kind}/", f"test-bucket/{name}/", recursive=True)
    yield "up", time.perf_counter() - start
    start = time.perf_counter()
    fs.get(f"test-bucket/{name}/", f"{folder / name}/", recursive=True)
    yield "down", time.perf_counter() - start
    clean(folder, kind, name)


def warm_up() -> None:
    """Import both clients and open a connection, which is no part of the work."""
    import gcsfs

    from stratos_jax import store

    store.write_bytes("gs://test-bucket/warm", b"1")
    gcsfs.GCSFileSystem(token="anon", use_listings_cache=False).cat("test-bucket/warm")


def clean(folder: pathlib.Path, kind: str, name: str) -> None:
    """Check that every file came back, and make room."""
    from stratos_jax import store

    for path in (folder / kind).rglob("*.bin"):
        back = folder / name / path.relative_to(folder / kind)
        assert back.stat().st_size == path.stat().st_size, back
    shutil.rmtree(folder / name)
    store.delete_tree(f"gs://test-bucket/{name}")


def make(folder: pathlib.Path, number: int, size: int) -> None:
    """Files of random bytes."""
    for i in range(number):
        path = folder / f"d{i % 10}" / f"f{i}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            for start in range(0, size, 1 << 24):
                file.write(os.urandom(min(1 << 24, size - start)))


def point_clients_at(url: str) -> None:
    """Set the environment that sends both clients to the server."""
    os.environ |= {
        "STORAGE_EMULATOR_HOST": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
        "GOOGLE_CLOUD_PROJECT": "test-project",
    }


def table(rows: list[dict]) -> str:
    """The figures as a table for docs/benchmarks."""
    import gcsfs
    import google.cloud.storage

    head = ["work", "ours s", "ours MB/s", "ours files/s", "gcsfs s", "gcsfs MB/s", "gcsfs files/s", "times as fast"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(value) for value in one.values())} |" for one in rows]
    versions = f"google-cloud-storage {google.cloud.storage.__version__}, gcsfs {gcsfs.__version__}"
    return "\n".join([*lines, "", f"Python {platform.python_version()}, {versions}, {os.cpu_count()} cores"])


if __name__ == "__main__":
    main()
