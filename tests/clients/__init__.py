"""Real S3 clients move real trees and compare."""
