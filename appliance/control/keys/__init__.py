"""The master key and the contract keys it wraps."""
