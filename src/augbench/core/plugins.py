"""Deprecated: names of version 0.1.0. Plug-ins and their tests run unedited, as a plug-in's digest is in its keys.

| old | new |
|---|---|
| `augbench.core.plugins` | `augbench.core.registry` |
| `augbench.core.contracts.Workroom` | `augbench.core.contracts.AdaptContext` |
| `augbench.testing.workroom` | `augbench.testing.adapt_context` |
"""

from augbench.core.registry import find, get, load_file, load_text, loaded_files, make, version

__all__ = ["find", "get", "load_file", "load_text", "loaded_files", "make", "version"]
