"""Files in, answers out: sources of images, and results on the disk."""
