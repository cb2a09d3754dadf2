"""What a data set's prepare.py and every reader share. numpy, and Pillow or lmdb where a format needs them; no torch."""
