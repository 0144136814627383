"""What all points of a scan together say of their positions."""
