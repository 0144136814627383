"""Which jobs there are: what was asked for, what the batch system says, and what the buffer hears."""
