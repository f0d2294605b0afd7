"""Augmenters: one file, one plug-in; the file's stem is the name."""
