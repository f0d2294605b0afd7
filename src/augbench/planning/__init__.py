"""Planning: grid files, the plan of a grid, splits, the datasets of a run, and the remaining work."""
