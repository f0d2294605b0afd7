"""Run ``augbench`` as ``python -m augbench``."""

from augbench.cli.app import main

main()
