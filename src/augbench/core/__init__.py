"""The vocabulary: specs and keys, grid and plan, store, contracts. NumPy, pandas and pydantic only."""
