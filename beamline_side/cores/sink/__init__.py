"""The sink: which results a product has, who asks for them, and what may be let go."""
