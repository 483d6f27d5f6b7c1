"""For authors of plug-ins: the contract of a source as a test, and a context to run a source in.

from visor.sources import open_source
from visor.testing import check_source, source_context

def test_contract():
    with source_context(allow_hosts=["127.0.0.1:8000"]) as context:
        check_source(lambda: open_source("mine", {"kind": "my_kind", …}, context))
"""

from visor.testing.sources import BrokenContract, check_source, source_context

__all__ = ["BrokenContract", "check_source", "source_context"]
