"""Ray around the jobs, and the same without Ray."""
