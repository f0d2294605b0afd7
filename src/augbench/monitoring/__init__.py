"""Status of the grids of a store, without torch and Ray."""
