"""For authors of plug-ins: the contracts of a source and of a model as tests, and a context to run a source in.

from visor.sources import open_source
from visor.testing import check_source, source_context

def test_contract():
    with source_context(allow_hosts=["127.0.0.1:8000"]) as context:
        check_source(lambda: open_source("mine", {"kind": "my_kind", …}, context))

from visor.testing import check_model

def test_model():
    check_model(MODEL)  # the ModelDescription that the entry point names
"""

from visor.testing.models import check_model
from visor.testing.sources import BrokenContract, check_source, source_context

__all__ = ["BrokenContract", "check_model", "check_source", "source_context"]
