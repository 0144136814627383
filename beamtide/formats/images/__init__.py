"""Image files (TIFF, CBF, EDF, MarCCD): what their headers say, and their frames as fabio reads them."""
