"""Settings of the environment are right, or refused in a sentence that names the variable and its value."""

from __future__ import annotations

import pytest

from visor.errors import SettingsError
from visor.settings import Settings


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VISOR_BUDGET", "5,00", 'VISOR_BUDGET is "5,00". Valid: a number'),
        ("VISOR_BUDGET", "5 EUR", "a number"),
        ("VISOR_BUDGET", "-1", "Valid: a finite number of at least 0"),
        ("VISOR_BUDGET", "nan", "finite"),
        ("VISOR_BUDGET", "inf", "finite"),
        ("VISOR_BUDGET_DOLLAR", "0", "Valid: a finite number above 0"),
        ("VISOR_QUOTA_SHARE", "nan", "finite"),
        ("VISOR_QUOTA_SHARE", "90", "from 0 to 1"),
        ("VISOR_OWNER_RESERVE", "1.5", "from 0 to 1"),
        ("VISOR_SEARCHES_PER_MINUTE", "0", "above 0"),
        ("VISOR_READS_BURST", "0", "above 0"),
        ("VISOR_BATCH_SIZE", "0", "above 0"),
        ("VISOR_LINKS_A_DAY", "-3", "at least 0"),
        ("VISOR_LANGUAGES", "english,klingon", "klingon"),
        ("VISOR_ENGINE", "faiss", 'VISOR_ENGINE is "faiss"'),
        ("VISOR_DEVICE", "maybe", 'VISOR_DEVICE is "maybe"'),
        ("VISOR_HOME", "~nobody-here/visor", "a folder"),
        ("VISOR_MODELS", "~nobody-here/models", "a folder"),
        *(
            ("VISOR_INDEX", name, "a name without slashes")
            for name in ("", "../up", "a/b", ".", "..", "a\\b", ".hidden")
        ),
    ],
)
def test_nonsense_is_refused(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read({variable: value})
    assert variable in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("variable", ["VISOR_BUDGET", "VISOR_DEVICE", "VISOR_HOME", "VISOR_ENGINE", "VISOR_PIXELS_MAX"])
def test_what_is_empty_is_not_set(variable: str) -> None:
    assert Settings.read({variable: " "}) == Settings.read({})


@pytest.mark.parametrize("name", ["default", "own-Meine Bilder", "büro", "v1.2", "123"])
def test_names_of_folders_are_names_of_indexes(name: str) -> None:
    assert Settings.read({"VISOR_INDEX": name}).index == name
