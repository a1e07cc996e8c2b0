"""The S3 front's pieces, without a socket."""
