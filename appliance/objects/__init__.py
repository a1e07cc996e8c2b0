"""What S3 means, once, over any engine: buckets, objects, uploads, listings, tags."""
