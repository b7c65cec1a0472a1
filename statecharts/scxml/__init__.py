"""SCXML 1.0 documents (https://www.w3.org/TR/scxml/), read into the definition model and written from it.

`datamodel` is `cel` (also when none is named) or `null`: expressions are CEL over bare variables.
"""

from statewright.statecharts.scxml.reader import read_scxml
from statewright.statecharts.scxml.writer import write_scxml

__all__ = ["read_scxml", "write_scxml"]
