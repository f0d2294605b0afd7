"""Dataset plug-ins: one module each; the file's stem is the plug-in's name."""
