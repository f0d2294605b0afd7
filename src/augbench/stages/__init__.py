"""The stages of a run (adapt, search, generate, fidelity, train), each readable top to bottom and free of Ray."""
