"""The one client of google-cloud-storage in a process: connections kept open, retries, and errors said for a person."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator

import google.auth.exceptions
import requests
from google.api_core import exceptions
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from stratos_jax.store.errors import Missing, local_errors
from stratos_jax.store.names import Url, split_remote
from stratos_jax.types import UserError

CONNECTIONS = 24  # kept open: as many as there are threads, at least

# 408, 429, 5xx and dropped connections; waits of up to 0.25, 0.5, 1 ... 32 s, each drawn at random.
RETRY = DEFAULT_RETRY.with_delay(initial=0.25, maximum=32.0, multiplier=2.0).with_timeout(600.0)


_lock = threading.Lock()
_current: tuple[tuple[str, ...], Client] | None = None


def client() -> Client:
    """The client; another one after a fork, or once the environment names another server or other credentials."""
    global _current
    names = ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT")
    key = (str(os.getpid()), *(os.environ.get(name, "") for name in names))
    with _lock:
        if _current is None or _current[0] != key:
            made = Client()
            _tune(made)
            if _current is not None:
                _current[1].close()
            _current = key, made
        return _current[1]


def _tune(made: Client) -> None:
    """Keep more connections open than the library's 10, and look for proxies once instead of at every request."""
    session, server = made._http, made._connection.API_BASE_URL  # pyright: ignore[reportOptionalMemberAccess]
    settings = session.merge_environment_settings(server, {}, None, None, None)
    session.proxies, session.verify, session.trust_env = settings["proxies"], settings["verify"], False
    adapter = HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    session.hooks["response"].append(_read_error)


def _read_error(response: requests.Response, *_: object, **__: object) -> None:
    """Read what an error says at once: the library would leave the connection open, and fail where it breaks off."""
    if response.status_code >= 400:
        response.content  # noqa: B018  (a property that reads)


def blob_of(url: Url, generation: int | None = None) -> Blob:
    """The object of a URL; asks nothing of the server."""
    bucket, name = split_remote(url)
    if not name:
        raise UserError("this names a bucket, not a file in it", where=url)
    return client().bucket(bucket).blob(name, generation=generation)


@contextlib.contextmanager
def remote_errors(url: Url) -> Iterator[None]:
    """Raise a `UserError` for what the service refuses, and for a local disk that is full."""
    try:
        with local_errors(url):
            yield
    except exceptions.NotFound as error:
        bucket = split_remote(url)[0]
        if "bucket does not exist" in str(error):
            do = "check its name, or make it: gcloud storage buckets create gs://" + bucket
            raise UserError("there is no such bucket", where=url, got=bucket, do=do) from error
        raise Missing("no such file", where=url, do="check the path: gcloud storage ls") from error
    except (exceptions.Unauthorized, google.auth.exceptions.GoogleAuthError) as error:
        do = "gcloud auth application-default login, or point GOOGLE_APPLICATION_CREDENTIALS at a key file"
        raise UserError("Google Cloud does not accept the credentials", where=url, got=_short(error), do=do) from error
    except exceptions.Forbidden as error:
        do = "have someone grant this account roles/storage.objectUser on the bucket"
        raise UserError("no permission in this bucket", where=url, got=_short(error), do=do) from error
    except exceptions.BadRequest as error:
        raise UserError("Google Cloud Storage refuses the request", where=url, got=_short(error)) from error
    except DataCorruption as error:
        do = "run the same command again"
        raise UserError("bytes were damaged on the way", where=url, got=_short(error), do=do) from error
    except (exceptions.RetryError, exceptions.ServerError, exceptions.TooManyRequests) as error:
        do = "run the same command again: what has arrived is kept"
        raise UserError("Google Cloud Storage does not answer", where=url, got=_short(error), do=do) from error
    except (InvalidResponse, requests.exceptions.RequestException) as error:
        do = "check the network and run the same command again: what has arrived is kept"
        raise UserError("the transfer failed", where=url, got=_short(error), do=do) from error


def _short(error: BaseException) -> str:
    """The first line of what the service said."""
    message = getattr(error, "message", None) or str(error)
    response = getattr(error, "response", None)
    if response is not None and "application/json" in response.headers.get("Content-Type", ""):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            message = response.json()["error"]["message"]
    text = re.sub(r"^(GET|POST|PUT|DELETE) \S+: |: \('Request failed with status code'.*", "", str(message).strip())
    return text.splitlines()[0][:300] if text else type(error).__name__
