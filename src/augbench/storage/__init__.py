"""The store: its files, local or remote, leases, records, score tables, logs."""
