"""YAML files as checked, frozen settings."""
