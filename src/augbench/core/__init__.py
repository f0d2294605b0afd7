"""Core types of augbench: plug-in base classes, specs and keys, protocols, seeds. NumPy, pandas and pydantic only."""
