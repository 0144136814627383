"""The modalities: each is a light spec.py and a heavy kernel.py."""
