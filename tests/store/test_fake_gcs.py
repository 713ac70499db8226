"""The fake answers as the service does: status codes, headers, error bodies, preconditions, ranges, sessions."""

import base64
import http.client
import json
import os

import google_crc32c
import pytest
from fake_gcs.objects import Body
from fake_gcs.server import byte_range
from fake_gcs.uploads import parse_multipart

OBJECT = "/storage/v1/b/test-bucket/o/"
UPLOAD = "/upload/storage/v1/b/test-bucket/o?"
QUANTUM = 256 << 10


class Wire:
    """One raw connection."""

    def __init__(self, server):
        self._connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)

    def __call__(self, method, path, body=None, **headers):
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self._connection.request(method, path, body, named)
        reply = self._connection.getresponse()
        reply.data = reply.read()
        return reply

    def close(self):
        self._connection.close()


@pytest.fixture
def wire(fake_gcs):
    made = Wire(fake_gcs)
    yield made
    made.close()


def put(wire, name, data=b"hello", **query):
    extra = "".join(f"&{key}={value}" for key, value in query.items())
    return wire("POST", f"{UPLOAD}uploadType=media&name={name}{extra}", data)


def test_insert_get_and_delete(wire):
    made = json.loads(put(wire, "a%2Fb").data)
    assert (made["kind"], made["name"], made["bucket"], made["size"]) == ("storage#object", "a/b", "test-bucket", "5")
    assert (
        made["crc32c"] == "mnG7TA==" and made["md5Hash"] == "XUFAKrxLKna5cZ2REBfFkg==" and made["metageneration"] == "1"
    )
    assert json.loads(wire("GET", OBJECT + "a%2Fb").data) == made == json.loads(wire("GET", OBJECT + "a/b").data)
    media = wire("GET", OBJECT + "a%2Fb?alt=media")
    assert (media.status, media.data) == (200, b"hello")
    assert media.headers["x-goog-generation"] == made["generation"] and media.headers["x-goog-metageneration"] == "1"
    assert media.headers["x-goog-hash"] == f"crc32c={made['crc32c']},md5={made['md5Hash']}"
    assert media.headers["x-goog-stored-content-length"] == "5"
    assert wire("GET", "/download" + OBJECT + "a%2Fb?alt=media").data == b"hello"
    gone = wire("DELETE", OBJECT + "a%2Fb")
    assert (gone.status, gone.data) == (204, b"") and wire("GET", OBJECT + "a%2Fb").status == 404


def test_errors_have_the_shape_that_clients_parse(wire):
    for path, text in (
        (OBJECT + "x", "No such object: test-bucket/x"),
        ("/storage/v1/b/none/o", "bucket does not exist"),
    ):
        reply = wire("GET", path)
        error = json.loads(reply.data)["error"]
        assert reply.status == error["code"] == 404 and text in error["message"]
        assert error["errors"][0]["reason"] == "notFound" and error["errors"][0]["message"] == error["message"]
    assert wire("GET", OBJECT + "x?alt=media").data == b"No such object: test-bucket/x"
    assert wire("POST", "/storage/v1/b", json.dumps({"name": "test-bucket"})).status == 409
    assert wire("POST", "/storage/v1/b", json.dumps({"name": "UP"})).status == 400
    assert wire("POST", UPLOAD + "uploadType=media", b"x").status == 400  # no name
    assert wire("POST", UPLOAD + "uploadType=odd&name=x", b"x").status == 400


def test_generation_preconditions(wire):
    first = json.loads(put(wire, "x", ifGenerationMatch=0).data)["generation"]
    refused = put(wire, "x", ifGenerationMatch=0)
    assert refused.status == 412 and json.loads(refused.data)["error"]["errors"][0]["reason"] == "conditionNotMet"
    assert put(wire, "y", ifGenerationMatch=7).status == 412
    second = json.loads(put(wire, "x", b"two", ifGenerationMatch=first).data)["generation"]
    assert int(second) > int(first)
    assert wire("GET", f"{OBJECT}x?ifGenerationMatch={first}").status == 412
    assert wire("GET", f"{OBJECT}x?ifGenerationNotMatch={second}").status == 304
    assert wire("GET", f"{OBJECT}x?ifGenerationNotMatch={first}").status == 200
    assert wire("GET", f"{OBJECT}x?generation={first}&alt=media").status == 404
    assert wire("GET", f"{OBJECT}x?generation={second}&alt=media").data == b"two"
    assert wire("DELETE", f"{OBJECT}x?ifGenerationMatch={first}").status == 412
    patched = json.loads(wire("PATCH", f"{OBJECT}x?ifMetagenerationMatch=1", '{"metadata": {"a": "b"}}').data)
    assert patched["metageneration"] == "2" and patched["metadata"] == {"a": "b"} and patched["generation"] == second
    assert wire("PATCH", f"{OBJECT}x?ifMetagenerationMatch=1", "{}").status == 412
    assert wire("DELETE", f"{OBJECT}x?ifGenerationMatch={second}").status == 204
    assert wire("DELETE", f"{OBJECT}x").status == 404


def test_ranges(wire):
    put(wire, "x", b"0123456789")
    for header, status, data, content_range in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        reply = wire("GET", OBJECT + "x?alt=media", Range=header)
        assert (reply.status, reply.data, reply.headers["Content-Range"]) == (status, data, content_range), header
    assert wire("GET", OBJECT + "x?alt=media", Range="bytes=10-").status == 416
    put(wire, "empty", b"")
    assert wire("GET", OBJECT + "empty?alt=media", Range="bytes=0-0").status == 416
    assert byte_range(None, 5) is None and byte_range("bytes=-9", 5) == (0, 5)


def test_checksums_claimed_are_checked(wire):
    wrong = base64.b64encode(b"1234").decode()
    for claim in ({"crc32c": wrong}, {"md5Hash": base64.b64encode(bytes(16)).decode()}):
        body = multipart({"name": "x", **claim}, b"hello")
        reply = wire("POST", UPLOAD + "uploadType=multipart", body, Content_Type="multipart/related; boundary=b")
        assert reply.status == 400 and "doesn't match calculated" in json.loads(reply.data)["error"]["message"]
    assert wire("POST", UPLOAD + "uploadType=media&name=x", b"hello", X_Goog_Hash=f"crc32c={wrong}").status == 400
    assert wire("GET", OBJECT + "x").status == 404
    assert wire("POST", UPLOAD + "uploadType=media&name=x", b"hello", X_Goog_Hash="crc32c=mnG7TA==").status == 200


def multipart(metadata, media, end="\r\n"):
    body = end.join(
        ["--b", "Content-Type: application/json", "", json.dumps(metadata), "--b", "Content-Type: a/b", "", ""]
    )
    return body.encode() + media + f"{end}--b--{end}".encode()


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("media", [b"", b"\r\n", b"\r", b"--c", b"a\r\n--c\n", bytes(range(256))])
def test_multipart_keeps_every_byte(media, end):
    metadata, content_type, found = parse_multipart(
        "multipart/related; boundary=b", multipart({"name": "x"}, media, end)
    )
    assert (metadata, content_type, found) == ({"name": "x"}, "a/b", media)


def test_listing_with_prefix_delimiter_offsets_and_pages(wire):
    for name in ("a/1", "a/2", "a/b/3", "b", "c/", "c/4", "d"):
        put(wire, name.replace("/", "%2F"))

    def listed(query):
        page = json.loads(wire("GET", f"/storage/v1/b/test-bucket/o?{query}").data)
        return [item["name"] for item in page.get("items", [])], page.get("prefixes", []), page.get("nextPageToken")

    assert listed("")[0] == ["a/1", "a/2", "a/b/3", "b", "c/", "c/4", "d"]
    assert listed("prefix=a/") == (["a/1", "a/2", "a/b/3"], [], None)
    assert listed("delimiter=/") == (["b", "d"], ["a/", "c/"], None)
    assert listed("delimiter=/&includeTrailingDelimiter=true")[0] == ["b", "c/", "d"]
    assert listed("prefix=a/&delimiter=/") == (["a/1", "a/2"], ["a/b/"], None)
    assert listed("startOffset=a/2&endOffset=c/4")[0] == ["a/2", "a/b/3", "b", "c/"]
    for query in ("", "delimiter=/&"):
        names, prefixes, token = [], [], ""
        while token is not None:
            page = listed(f"{query}maxResults=2&pageToken={token}")
            assert len(page[0]) + len(page[1]) <= 2
            names, prefixes, token = names + page[0], prefixes + page[1], page[2]
        assert (names, prefixes) == listed(query)[:2]
    only = json.loads(wire("GET", "/storage/v1/b/test-bucket/o?fields=items(name,size),kind").data)
    assert only["items"][0] == {"name": "a/1", "size": "5"} and only["kind"] == "storage#objects"


def begin(wire, name="x", query="", metadata=None, **headers):
    reply = wire("POST", f"{UPLOAD}uploadType=resumable&name={name}{query}", json.dumps(metadata or {}), **headers)
    assert reply.status == 200, reply.data
    return "/upload" + reply.headers["Location"].split("/upload", 1)[1]


def test_a_resumable_upload_in_chunks_with_status_and_repetition(wire):
    data, session = os.urandom(2 * QUANTUM + 5), begin(wire, metadata={"contentType": "a/b", "metadata": {"k": "v"}})
    fresh = wire("PUT", session, b"", Content_Range="bytes */*")
    assert fresh.status == 308 and fresh.headers["Range"] is None
    first = wire("PUT", session, data[:QUANTUM], Content_Range=f"bytes 0-{QUANTUM - 1}/*")
    assert (first.status, first.headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    again = wire("PUT", session, data[:QUANTUM], Content_Range=f"bytes 0-{QUANTUM - 1}/*")
    assert again.headers["Range"] == f"bytes=0-{QUANTUM - 1}", "bytes that are there are passed over"
    status = wire("PUT", session, b"", Content_Range=f"bytes */{len(data)}")
    assert (status.status, status.headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    assert wire("PUT", session, b"zz", Content_Range=f"bytes {2 * QUANTUM}-{2 * QUANTUM + 1}/*").status == 503, "a gap"
    assert wire("GET", OBJECT + "x").status == 404, "nothing is seen before the end"
    last = wire("PUT", session, data[QUANTUM:], Content_Range=f"bytes {QUANTUM}-{len(data) - 1}/{len(data)}")
    made = json.loads(last.data)
    assert last.status == 200 and made["contentType"] == "a/b" and made["metadata"] == {"k": "v"}
    assert wire("PUT", session, b"", Content_Range=f"bytes */{len(data)}").status == 200, "a finished one says so again"
    assert wire("GET", OBJECT + "x?alt=media").data == data


def test_resumable_uploads_end_in_other_ways(wire):
    session = begin(wire)
    assert wire("PUT", session, b"all at once").status == 200
    session = begin(wire, "empty")
    assert wire("PUT", session, b"", Content_Range="bytes */0").status == 200
    session = begin(wire, "cancelled")
    assert wire("DELETE", session).status == 499
    assert wire("PUT", session, b"", Content_Range="bytes */*").status == 404
    session = begin(wire, "declared", X_Upload_Content_Length="10")
    assert wire("PUT", session, b"12345", Content_Range="bytes 0-4/5").status == 400
    session = begin(wire, "hash")
    wrong = wire("PUT", session, b"hello", Content_Range="bytes 0-4/5", X_Goog_Hash="crc32c=AAAAAA==")
    assert wrong.status == 400 and wire("GET", OBJECT + "hash").status == 404
    assert wire("PUT", begin(wire, "bad"), b"x", Content_Range="bytes x").status == 400
    session = begin(wire, "raced", "&ifGenerationMatch=0")
    put(wire, "raced")
    assert wire("PUT", session, b"hello").status == 412
    assert wire("POST", "/upload/storage/v1/b/none/o?uploadType=resumable&name=x", "{}").status == 404


def test_rewrite_copy_compose_and_move(wire):
    put(wire, "x"), put(wire, "y", b" world")
    done = json.loads(wire("POST", OBJECT + "x/rewriteTo/b/test-bucket/o/z%2F1", "{}").data)
    assert done["done"] and done["resource"]["name"] == "z/1" and done["objectSize"] == "5"
    assert wire("POST", OBJECT + "x/rewriteTo/b/test-bucket/o/z%2F1?ifGenerationMatch=0", "{}").status == 412
    assert wire("POST", OBJECT + "x/rewriteTo/b/test-bucket/o/q?ifSourceGenerationMatch=1", "{}").status == 412
    assert json.loads(wire("POST", OBJECT + "x/copyTo/b/test-bucket/o/c", "{}").data)["name"] == "c"
    assert (
        wire("POST", OBJECT + "w/compose", json.dumps({"sourceObjects": [{"name": "x"}, {"name": "y"}]})).status == 200
    )
    assert wire("GET", OBJECT + "w?alt=media").data == b"hello world"
    assert wire("POST", OBJECT + "w/moveTo/o/v").status == 200 and wire("GET", OBJECT + "w").status == 404


def test_xml_paths(wire):
    made = wire("PUT", "/test-bucket/a/b", b"hello", x_goog_if_generation_match="0")
    assert made.status == 200 and "crc32c=mnG7TA==" in made.headers["x-goog-hash"]
    assert wire("PUT", "/test-bucket/a/b", b"hello", x_goog_if_generation_match="0").status == 412
    assert wire("GET", "/test-bucket/a/b", Range="bytes=1-2").data == b"el"
    head = wire("HEAD", "/test-bucket/a/b")
    assert (head.status, head.data, head.headers["Content-Length"]) == (200, b"", "5")
    assert b"<Code>NoSuchKey</Code>" in wire("GET", "/test-bucket/none").data
    assert wire("DELETE", "/test-bucket/a/b").status == 204


def test_chunked_requests_and_gzip(wire):
    import gzip

    assert wire("POST", UPLOAD + "uploadType=media&name=x", iter([b"hel", b"lo"])).status == 200
    assert wire("GET", OBJECT + "x?alt=media").data == b"hello"
    put(wire, "z", gzip.compress(b"hello"), contentEncoding="gzip")
    plain, packed = (wire("GET", OBJECT + "z?alt=media", Accept_Encoding=e) for e in ("identity", "gzip"))
    assert (
        plain.data == b"hello"
        and packed.data == gzip.compress(b"hello")
        and packed.headers["Content-Encoding"] == "gzip"
    )


def test_faults_fire_as_told(wire, fake_gcs):
    put(wire, "x")
    for status in (429, 503):
        fake_gcs.faults.add("status", "o/x", status=status)
        reply = wire("GET", OBJECT + "x")
        assert reply.status == json.loads(reply.data)["error"]["code"] == status
        assert wire("GET", OBJECT + "x").status == 200, "once"
    for kind, error in (
        ("reset", ConnectionError),
        ("drop_reply", ConnectionError),
        ("truncate", http.client.IncompleteRead),
        ("reset_reply", (http.client.IncompleteRead, ConnectionError)),
    ):
        fake_gcs.faults.add(kind)
        with pytest.raises(error):
            wire("GET", OBJECT + "x?alt=media")
        wire.close()
    fake_gcs.faults.add("damage")
    assert wire("GET", OBJECT + "x?alt=media").data == b"hemlo"
    fake_gcs.faults.add("drop_reply", "POST")
    with pytest.raises(ConnectionError):
        put(wire, "kept")
    wire.close()
    assert wire("GET", OBJECT + "kept").status == 200, "the work was done"


def test_large_bodies_move_to_disk(tmp_path):
    data, body = os.urandom(9 << 20), Body(tmp_path)
    for start in range(0, len(data), 1 << 20):
        body.append(data[start : start + (1 << 20)])
    assert body.read(0, body.size) == data and body.read(5, 9) == data[5:9]
    assert body.crc32c == base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
