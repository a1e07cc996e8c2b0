"""The storage engine: ordered records and blobs; knows nothing of S3."""
