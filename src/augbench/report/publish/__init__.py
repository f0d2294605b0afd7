"""Published stores: export from a full store, and verification against their own scores and keys."""
