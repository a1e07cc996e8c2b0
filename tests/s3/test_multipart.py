"""Uploads in parts: create, parts, copied parts, list, complete, abort."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from tests.s3.raw import RawClient
from tests.s3.refusals import refused

MEBIBYTE = 1024 * 1024
PART = 5 * MEBIBYTE


def start(s3: Any, bucket: str, key: str = "k", **parameters: Any) -> str:
    upload: str = s3.create_multipart_upload(Bucket=bucket, Key=key, **parameters)["UploadId"]
    return upload


def put_parts(s3: Any, bucket: str, upload: str, bodies: list[bytes]) -> list[dict[str, Any]]:
    return [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(
                Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body
            )["ETag"],
        }
        for number, body in enumerate(bodies, 1)
    ]


def complete(s3: Any, bucket: str, upload: str, parts: list[dict[str, Any]], **more: Any) -> Any:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}, **more
    )


def test_an_object_of_parts(s3: Any, raw: RawClient, bucket: str, chance: random.Random) -> None:
    bodies = [chance.randbytes(PART), chance.randbytes(1000)]
    upload = start(s3, bucket, ContentType="a/b", Metadata={"m": "1"}, Tagging="t=1")
    parts = put_parts(s3, bucket, upload, bodies)
    done = complete(s3, bucket, upload, parts)
    digests = b"".join(hashlib.md5(body).digest() for body in bodies)
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    assert (done["Bucket"], done["Key"]) == (bucket, "k")
    assert done["Location"].endswith(f"/{bucket}/k")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"".join(bodies)
    assert (got["ETag"], got["ContentType"]) == (done["ETag"], "a/b")
    assert (got["Metadata"], got["TagCount"]) == ({"m": "1"}, 1)
    again = complete(s3, bucket, upload, parts)
    assert again["ETag"] == done["ETag"], "a repeated completion answers as the first"
    part = raw.ask("GET", f"/{bucket}/k?partNumber=2")
    assert (part.status, part.body) == (206, bodies[1])
    assert part.headers["x-amz-mp-parts-count"] == "2"
    assert part.headers["content-range"] == f"bytes {PART}-{PART + 999}/{PART + 1000}"
    head = raw.ask("HEAD", f"/{bucket}/k?partNumber=1")
    assert (head.status, head.headers["content-length"]) == (206, str(PART))
    across = raw.ask("GET", f"/{bucket}/k", {"range": f"bytes={PART - 10}-{PART + 9}"})
    assert across.body == bodies[0][-10:] + bodies[1][:10]
    status, code = refused(s3.get_object, Bucket=bucket, Key="k", PartNumber=3)
    assert (status, code) in {(400, "InvalidPart"), (416, "InvalidPartNumber")}


def test_nothing_shows_before_completion(s3: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    put_parts(s3, bucket, upload, [b"x"])
    assert refused(s3.head_object, Bucket=bucket, Key="k")[0] == 404
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    answer = refused(s3.list_parts, Bucket=bucket, Key="k", UploadId=upload)
    assert answer == (404, "NoSuchUpload")
    answer = refused(
        s3.upload_part, Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x"
    )
    assert answer == (404, "NoSuchUpload")


def test_one_small_part_is_enough(s3: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    parts = put_parts(s3, bucket, upload, [b"only"])
    complete(s3, bucket, upload, parts)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"only"


def test_small_parts_before_the_last(s3: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    parts = put_parts(s3, bucket, upload, [b"small", b"last"])
    answer = refused(
        s3.complete_multipart_upload,
        Bucket=bucket,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": parts},
    )
    assert answer == (400, "EntityTooSmall")


def test_parts_that_are_none(s3: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    [part] = put_parts(s3, bucket, upload, [b"x"])
    for bad in (
        [{"PartNumber": 1, "ETag": '"0"'}],
        [{"PartNumber": 2, "ETag": part["ETag"]}],
        [part, {"PartNumber": 2, "ETag": part["ETag"]}],
    ):
        answer = refused(
            s3.complete_multipart_upload,
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            MultipartUpload={"Parts": bad},
        )
        assert answer == (400, "InvalidPart")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "MalformedXML"),
        ("<CompleteMultipartUpload/>", "MalformedXML"),
        ("<CompleteMultipartUpload><Part/></CompleteMultipartUpload>", "MalformedXML"),
        ("<Other><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></Other>", "MalformedXML"),
        (
            "<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>e</ETag></Part>"
            "</CompleteMultipartUpload>",
            "MalformedXML",
        ),
        (
            "<CompleteMultipartUpload><Part><PartNumber>0</PartNumber><ETag>e</ETag></Part>"
            "</CompleteMultipartUpload>",
            "InvalidArgument",
        ),
        (
            "<CompleteMultipartUpload><Part><PartNumber>2</PartNumber><ETag>e</ETag></Part>"
            "<Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></CompleteMultipartUpload>",
            "InvalidPartOrder",
        ),
        (
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag>"
            "<ChecksumCRC32>!</ChecksumCRC32></Part></CompleteMultipartUpload>",
            "InvalidRequest",
        ),
    ],
)
def test_malformed_completions(s3: Any, raw: RawClient, bucket: str, body: str, code: str) -> None:
    upload = start(s3, bucket)
    answer = raw.ask("POST", f"/{bucket}/k?uploadId={upload}", body=body.encode())
    assert (answer.status, answer.code) == (400, code)


def test_tags_with_and_without_quotes(s3: Any, raw: RawClient, bucket: str) -> None:
    for quote in ("", '"', "&quot;"):
        upload = start(s3, bucket)
        [part] = put_parts(s3, bucket, upload, [b"x"])
        etag = part["ETag"].strip('"')
        body = (
            '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Part>'
            f"<PartNumber>1</PartNumber><ETag>{quote}{etag}{quote}</ETag></Part>"
            "</CompleteMultipartUpload>"
        )
        answer = raw.ask("POST", f"/{bucket}/k?uploadId={upload}", body=body.encode())
        assert answer.status == 200
        assert answer.document.tag == "CompleteMultipartUploadResult"
        assert b'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' in answer.body


def test_a_part_named_twice_counts_as_last_named(s3: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    [first] = put_parts(s3, bucket, upload, [b"first"])
    [second] = put_parts(s3, bucket, upload, [b"second"])
    complete(s3, bucket, upload, [first, second])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", ""])
def test_part_numbers(s3: Any, raw: RawClient, bucket: str, number: str) -> None:
    upload = start(s3, bucket)
    answer = raw.ask("PUT", f"/{bucket}/k?uploadId={upload}&partNumber={number}", body=b"x")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_half_an_address(s3: Any, raw: RawClient, bucket: str) -> None:
    upload = start(s3, bucket)
    for target in (f"/{bucket}/k?uploadId={upload}", f"/{bucket}/k?partNumber=1"):
        answer = raw.ask("PUT", target, body=b"x")
        assert (answer.status, answer.code) == (400, "InvalidArgument"), target


def test_uploads_that_are_none(raw: RawClient, bucket: str) -> None:
    for upload in ("none", "", "..%2F..", "%00", "x" * 3000):
        for method, query in (
            ("PUT", f"uploadId={upload}&partNumber=1"),
            ("GET", f"uploadId={upload}"),
            ("DELETE", f"uploadId={upload}"),
        ):
            answer = raw.ask(method, f"/{bucket}/k?{query}", body=b"x" if method == "PUT" else b"")
            assert (answer.status, answer.code) == (404, "NoSuchUpload"), (method, upload)


def test_the_start_has_the_root_old_devices_know(raw: RawClient, bucket: str) -> None:
    answer = raw.ask("POST", f"/{bucket}/a%20b?uploads")
    document = answer.document
    assert document.tag == "InitiateMultipartUploadResult"
    assert [child.tag for child in document] == ["Bucket", "Key", "UploadId"]
    assert document.findtext("Key") == "a b"


def test_list_parts(s3: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    bodies = [b"a", b"bb", b"ccc"]
    parts = put_parts(s3, bucket, upload, bodies)
    found: list[tuple[int, str, int]] = []
    marker = 0
    while True:
        page = s3.list_parts(
            Bucket=bucket, Key="k", UploadId=upload, MaxParts=2, PartNumberMarker=marker
        )
        found += [(part["PartNumber"], part["ETag"], part["Size"]) for part in page["Parts"]]
        assert (page["MaxParts"], page["StorageClass"]) == (2, "STANDARD")
        assert page["Initiator"]["ID"] == page["Owner"]["ID"]
        if not page["IsTruncated"]:
            break
        marker = page["NextPartNumberMarker"]
    assert found == [
        (part["PartNumber"], part["ETag"], len(body))
        for part, body in zip(parts, bodies, strict=True)
    ]
    put_parts(s3, bucket, upload, [b"replaced"])
    page = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    assert [part["Size"] for part in page["Parts"]] == [8, 2, 3]


def test_list_uploads(s3: Any, bucket: str) -> None:
    keys = ["a/1", "a/2", "b", "b", "日 本"]
    made = sorted((key, start(s3, bucket, key)) for key in keys)
    for limit in (1, 2, 1000):
        found: list[tuple[str, str]] = []
        parameters: dict[str, Any] = {"Bucket": bucket, "MaxUploads": limit}
        while True:
            page = s3.list_multipart_uploads(**parameters)
            found += [(each["Key"], each["UploadId"]) for each in page.get("Uploads", [])]
            if not page["IsTruncated"]:
                break
            parameters["KeyMarker"] = page["NextKeyMarker"]
            parameters["UploadIdMarker"] = page["NextUploadIdMarker"]
        assert sorted(found) == made
        assert [key for key, _ in found] == [key for key, _ in made]
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", Prefix="")
    assert [found["Prefix"] for found in page["CommonPrefixes"]] == ["a/"]
    assert [found["Key"] for found in page["Uploads"]] == ["b", "b", "日 本"]
    for key, upload in made:
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_copied_parts(s3: Any, raw: RawClient, bucket: str, chance: random.Random) -> None:
    body = chance.randbytes(PART + 100)
    s3.put_object(Bucket=bucket, Key="source key", Body=body)
    source = {"Bucket": bucket, "Key": "source key"}
    upload = start(s3, bucket)
    parts = []
    for number, span in enumerate((f"bytes=0-{PART - 1}", f"bytes={PART}-{PART + 99}"), 1):
        answer = s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            PartNumber=number,
            CopySource=source,
            CopySourceRange=span,
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    complete(s3, bucket, upload, parts)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
    whole = start(s3, bucket)
    answer = s3.upload_part_copy(
        Bucket=bucket, Key="k", UploadId=whole, PartNumber=1, CopySource=source
    )
    assert answer["CopyPartResult"]["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    target = f"/{bucket}/k?uploadId={whole}&partNumber=2"
    copy = {"x-amz-copy-source": f"{bucket}/source%20key"}
    for span, code in (
        ("bytes=0", "InvalidArgument"),
        ("0-5", "InvalidArgument"),
        ("bytes=5-2", "InvalidArgument"),
        (f"bytes=0-{len(body)}", "InvalidRange"),
    ):
        refusal = raw.ask("PUT", target, {**copy, "x-amz-copy-source-range": span})
        assert (refusal.status // 100, refusal.code) == (4, code), span


def test_conditions_at_completion(s3: Any, bucket: str) -> None:
    first = start(s3, bucket)
    complete(s3, bucket, first, put_parts(s3, bucket, first, [b"1"]), IfNoneMatch="*")
    second = start(s3, bucket)
    parts = put_parts(s3, bucket, second, [b"2"])
    answer = refused(
        s3.complete_multipart_upload,
        Bucket=bucket,
        Key="k",
        UploadId=second,
        MultipartUpload={"Parts": parts},
        IfNoneMatch="*",
    )
    assert answer == (412, "PreconditionFailed")
    complete(s3, bucket, second, parts, IfMatch=s3.head_object(Bucket=bucket, Key="k")["ETag"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"


def test_the_declared_size_is_checked(s3: Any, raw: RawClient, bucket: str) -> None:
    upload = start(s3, bucket)
    parts = put_parts(s3, bucket, upload, [b"12345"])
    answer = refused(
        s3.complete_multipart_upload,
        Bucket=bucket,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": parts},
        MpuObjectSize=6,
    )
    assert answer == (400, "InvalidRequest")
    complete(s3, bucket, upload, parts, MpuObjectSize=5)


def test_strangers_touch_no_upload(s3: Any, stranger: Any, bucket: str) -> None:
    upload = start(s3, bucket)
    address = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    assert refused(stranger.list_parts, **address) == (403, "AccessDenied")
    assert refused(stranger.abort_multipart_upload, **address) == (403, "AccessDenied")
    answer = refused(stranger.upload_part, PartNumber=1, Body=b"x", **address)
    assert answer == (403, "AccessDenied")
    answer = refused(stranger.create_multipart_upload, Bucket=bucket, Key="k")
    assert answer == (403, "AccessDenied")
