"""Each job's whole story, top to bottom, without Ray."""
