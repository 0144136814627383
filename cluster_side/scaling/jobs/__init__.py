"""The jobs of a deployment: what was ordered, what the batch system says, and which workers the buffers hear."""
