"""What the point modalities share: columns of numbers, and stages that move along axes."""
