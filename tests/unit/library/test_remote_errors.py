"""Problem documents become the errors that they were made of."""

from __future__ import annotations

import httpx
import pytest

import visor
from visor import errors
from visor.library.remote import error_of
from visor.web.problems import problem


def tree(kind: type[visor.VisorError] = visor.VisorError) -> list[type[visor.VisorError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


@pytest.mark.parametrize("kind", [k for k in tree() if k.__module__ == errors.__name__], ids=lambda k: k.__name__)
def test_an_error_comes_back_as_it_was_raised(kind: type[visor.VisorError]) -> None:
    response = problem(kind("It was found", valid="This is valid", remedy="Do that"))
    error = error_of(httpx.Response(response.status_code, content=response.get_data(), headers=dict(response.headers)))
    assert error.code == kind.code
    assert type(error) is (kind if "code" in vars(kind) else kind.__mro__[1])
    assert str(error) == "It was found. Valid: This is valid. Do that."


def test_when_to_try_again_comes_along() -> None:
    response = problem(visor.QuotaReached("Too much", retry_after_s=77.2))
    error = error_of(httpx.Response(429, content=response.get_data(), headers=dict(response.headers)))
    assert isinstance(error, visor.QuotaReached)
    assert error.retry_after_s == 78


@pytest.mark.parametrize(
    ("status", "kind"), [(404, visor.RequestError), (502, visor.StoreUnavailable), (503, visor.StoreUnavailable)]
)
def test_an_answer_that_is_not_visors(status: int, kind: type[visor.VisorError]) -> None:
    error = error_of(httpx.Response(status, text="<html>Bad gateway <br"))
    assert type(error) is kind
    assert str(error) == f"The server answered {status}, but not as Visor does: 'Bad gateway'."
