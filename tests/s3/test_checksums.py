"""The five checksums, in headers and trailers, of objects and of parts; GetObjectAttributes."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from appliance.core.checksums import ChecksumAlgorithm, encode, hasher
from tests.s3.raw import RawClient
from tests.s3.refusals import refused

BODY = b"The quick brown fox jumps over the lazy dog"
ALGORITHMS = [algorithm.value for algorithm in ChecksumAlgorithm]
MEBIBYTE = 1024 * 1024


def digest(algorithm: str, body: bytes) -> str:
    made = hasher(ChecksumAlgorithm(algorithm))
    made.update(body)
    return encode(made.digest())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_in_a_trailer(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=BODY, ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    assert put[name] == digest(algorithm, BODY)
    assert put["ChecksumType"] == "FULL_OBJECT"
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == BODY
    assert got[name] == put[name]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_in_a_header(raw: RawClient, bucket: str, algorithm: str) -> None:
    header = f"x-amz-checksum-{algorithm.lower()}"
    good = raw.ask("PUT", f"/{bucket}/k", {header: digest(algorithm, BODY)}, BODY)
    assert (good.status, good.headers[header]) == (200, digest(algorithm, BODY))
    wrong = raw.ask("PUT", f"/{bucket}/wrong", {header: digest(algorithm, b"other")}, BODY)
    assert wrong.status == 400
    assert wrong.code in {"BadDigest", "InvalidRequest", "XAmzContentChecksumMismatch"}
    malformed = raw.ask("PUT", f"/{bucket}/wrong", {header: "AAA"}, BODY)
    assert (malformed.status, malformed.code) == (400, "BadDigest")
    assert raw.ask("HEAD", f"/{bucket}/wrong").status == 404


def test_content_md5(raw: RawClient, bucket: str) -> None:
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    other = base64.b64encode(hashlib.md5(b"").digest()).decode()
    assert raw.ask("PUT", f"/{bucket}/k", {"content-md5": right}, BODY).status == 200
    for header, code in ((other, "BadDigest"), ("x", "InvalidDigest"), ("", "InvalidDigest")):
        answer = raw.ask("PUT", f"/{bucket}/wrong", {"content-md5": header}, BODY)
        assert (answer.status, answer.code) == (400, code), header
    assert raw.ask("HEAD", f"/{bucket}/wrong").status == 404


def test_two_checksums_contradict(raw: RawClient, bucket: str) -> None:
    headers = {
        "x-amz-checksum-crc32": digest("CRC32", BODY),
        "x-amz-checksum-sha1": digest("SHA1", BODY),
    }
    answer = raw.ask("PUT", f"/{bucket}/k", {**headers}, BODY)
    assert (answer.status, answer.code) == (400, "InvalidRequest")


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC32C", "COMPOSITE"),
        ("CRC32C", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA1", "COMPOSITE"),
        ("SHA256", "COMPOSITE"),
    ],
)
def test_of_parts(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    bodies = [b"a" * (5 * MEBIBYTE), b"b" * 100]
    name = f"Checksum{algorithm}"
    created = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind
    )
    assert (created["ChecksumAlgorithm"], created["ChecksumType"]) == (algorithm, kind)
    upload = created["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        put = s3.upload_part(
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            PartNumber=number,
            Body=body,
            ChecksumAlgorithm=algorithm,
        )
        assert put[name] == digest(algorithm, body)
        parts.append({"PartNumber": number, "ETag": put["ETag"], name: put[name]})
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind)
    assert [part[name] for part in listed["Parts"]] == [part[name] for part in parts]
    whole = digest(algorithm, b"".join(bodies))
    if kind == "COMPOSITE":
        raw_digests = b"".join(base64.b64decode(part[name]) for part in parts)
        whole = f"{digest(algorithm, raw_digests)}-2"
    done = s3.complete_multipart_upload(
        Bucket=bucket,
        Key="k",
        UploadId=upload,
        MultipartUpload={"Parts": parts},
        ChecksumType=kind,
        **{name: whole},
    )
    assert (done[name], done["ChecksumType"]) == (whole, kind)
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (whole, kind)
    part = s3.get_object(Bucket=bucket, Key="k", PartNumber=2, ChecksumMode="ENABLED")
    assert part["Body"].read() == bodies[1]
    attributes = s3.get_object_attributes(
        Bucket=bucket, Key="k", ObjectAttributes=["Checksum", "ObjectParts"]
    )
    assert attributes["Checksum"][name] == whole
    assert [part["Size"] for part in attributes["ObjectParts"]["Parts"]] == [5 * MEBIBYTE, 100]


def test_a_wrong_checksum_at_completion(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(
        Bucket=bucket, Key="k", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
    )["UploadId"]
    put = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=BODY)
    part = {"PartNumber": 1, "ETag": put["ETag"], "ChecksumCRC32": put["ChecksumCRC32"]}
    for parts, whole in (
        ([part], digest("CRC32", b"other")),
        ([{**part, "ChecksumCRC32": digest("CRC32", b"other")}], put["ChecksumCRC32"]),
    ):
        status, code = refused(
            s3.complete_multipart_upload,
            Bucket=bucket,
            Key="k",
            UploadId=upload,
            MultipartUpload={"Parts": parts},
            ChecksumCRC32=whole,
            ChecksumType="FULL_OBJECT",
        )
        assert status == 400
        assert code in {"BadDigest", "InvalidPart", "InvalidRequest"}
    assert refused(s3.head_object, Bucket=bucket, Key="k")[0] == 404


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")]
)
def test_pairs_that_do_not_exist(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    answer = refused(
        s3.create_multipart_upload,
        Bucket=bucket,
        Key="k",
        ChecksumAlgorithm=algorithm,
        ChecksumType=kind,
    )
    assert answer == (400, "InvalidRequest")


def test_attributes_of_a_plain_object(s3: Any, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=BODY, ChecksumAlgorithm="SHA256")
    found = s3.get_object_attributes(
        Bucket=bucket,
        Key="k",
        ObjectAttributes=["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"],
    )
    assert found["ETag"] == put["ETag"].strip('"')
    assert found["Checksum"]["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert (found["StorageClass"], found["ObjectSize"]) == ("STANDARD", len(BODY))
    assert "ObjectParts" not in found
    head = s3.head_object(Bucket=bucket, Key="k")
    assert found["LastModified"] == head["LastModified"]
    only = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"])
    assert "ETag" not in only


def test_attributes_in_pages(s3: Any, bucket: str) -> None:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    parts = []
    for number in (1, 2):
        body = b"x" * (5 * MEBIBYTE if number == 1 else 1)
        put = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": put["ETag"]})
    s3.complete_multipart_upload(
        Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    address = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ObjectParts"]}
    first = s3.get_object_attributes(MaxParts=1, **address)["ObjectParts"]
    assert (first["TotalPartsCount"], first["IsTruncated"]) == (2, True)
    assert [part["PartNumber"] for part in first["Parts"]] == [1]
    second = s3.get_object_attributes(PartNumberMarker=first["NextPartNumberMarker"], **address)
    assert [part["PartNumber"] for part in second["ObjectParts"]["Parts"]] == [2]
    assert second["ObjectParts"]["IsTruncated"] is False


@pytest.mark.parametrize("header", [None, "", "Colour", "ETag,Colour"])
def test_attributes_that_do_not_exist(
    s3: Any, raw: RawClient, bucket: str, header: str | None
) -> None:
    s3.put_object(Bucket=bucket, Key="k")
    headers: dict[str, str | bytes] = {}
    if header is not None:
        headers["x-amz-object-attributes"] = header
    answer = raw.ask("GET", f"/{bucket}/k?attributes", headers)
    assert (answer.status, answer.code) == (400, "InvalidArgument")
