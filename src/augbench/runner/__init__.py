"""Run the work units of a plan, on Ray or inline in one process."""
