"""What every component does alike: tell that it lives, end with its parent, keep its state folder."""
