"""The crash-safe store behind distributor, buffer, sorter and sink."""
