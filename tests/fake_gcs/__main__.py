"""`python -m fake_gcs [--port N] [--directory D] [--bucket B]`: the server as a process; prints its URL."""

import argparse
import pathlib

from fake_gcs.server import FakeGcs

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--directory", type=pathlib.Path)
parser.add_argument("--bucket", default="test-bucket")
args = parser.parse_args()
server = FakeGcs(args.directory, args.port)
server.objects.create_bucket(args.bucket)
print(server.url, flush=True)
server.serve_forever()
