"""Forks a process for each transfer that a line on stdin asks for, so that a trial does not pay for imports again.

In: lines of JSON `{"local": ..., "url": ..., "replace": ..., "down": ...}`.
Out: the child's pid, then, once it ended, its status.
"""

import json
import os
import sys

import google.cloud.storage  # noqa: F401

from stratos_jax import store
from stratos_jax.store import gcs

gcs.RETRY = gcs.RETRY.with_delay(initial=0.05, maximum=1.0, multiplier=2.0)  # the same retries, sooner
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        try:
            if asked["down"]:
                store.download_tree(asked["url"], asked["local"])
            else:
                store.upload_tree(asked["local"], asked["url"], replace=asked["replace"])
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(2)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
