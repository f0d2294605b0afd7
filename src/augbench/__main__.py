"""``python -m augbench`` is ``augbench``."""

from augbench.cli.app import main

main()
