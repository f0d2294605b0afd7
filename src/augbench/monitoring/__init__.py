"""How far the grids of a store are, without torch and Ray."""
