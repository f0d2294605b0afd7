"""What is kept and how: the store, its files, leases, records, scores, logs."""
