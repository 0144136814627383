"""What every component does: send heartbeats, end with its parent process, keep its state folder."""
