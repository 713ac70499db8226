"""A model by its hub id, where there is a network; a folder as it is.

In: what a person typed. Out: a folder that can be opened.
"""

import os
import re

from stratos_jax import store
from stratos_jax.types import UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED = ["*.json", "*.safetensors", "*.model", "merges.txt", "vocab.txt", "chat_template*", "*.jinja"]


def local_or_fetched(source: str) -> str:
    """The folder itself, or the snapshot of a hub id in the local cache."""
    if store.is_remote(source) or os.path.isdir(source):
        return source
    if not HUB_ID.fullmatch(source):
        raise UserError("no such folder", where=source, do="check the path")
    import huggingface_hub

    try:
        return huggingface_hub.snapshot_download(source, allow_patterns=WANTED)
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        do = "without a network, fetch the folder elsewhere and give its path"
        got = str(error).strip().splitlines()[0][:300]
        raise UserError("neither a folder nor a model that the hub gives", where=source, got=got, do=do) from error
