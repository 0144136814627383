"""What can be computed: each modality is a light spec.py and a heavy kernel.py."""
