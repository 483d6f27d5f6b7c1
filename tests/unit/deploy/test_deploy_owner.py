"""What the owner sets reaches the cloud, or is refused with the reason before anything is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from visor.deploy.owner import check_owner, given_variables
from visor.errors import SettingsError

SHOP = """
[sources.shop]
kind = "shop_api"
url = "{url}"
items = "products[]"
[sources.shop.fields]
key = "id"
image_url = "image"
"""

# visor.toml, variables, what the refusal says (none: it works).
CASES: dict[str, tuple[str, list[str], str | None]] = {
    "a public shop": (SHOP.format(url="https://shop.example/api"), [], None),
    "no source": ("", [], None),
    "a folder": ('[sources.a]\nkind = "folder"\npath = "/pictures"\n', [], "reads a folder of this machine"),
    "a folder that is switched off": ('[sources.a]\nkind = "folder"\npath = "/p"\nenabled = false\n', [], None),
    "a secret that nothing sets": (SHOP.format(url="https://shop.example/${KEY}"), [], "${KEY}, which nothing sets"),
    "a secret": (SHOP.format(url="https://shop.example/${KEY}"), ['source_secrets={KEY="shop-key"}'], None),
    "a secret beside another": (
        SHOP.format(url="https://shop.example/${KEY}/${OTHER}"),
        ['source_secrets={KEY="shop-key"}'],
        "${OTHER}, which nothing sets",
    ),
    "a private bucket": ('[sources.b]\nkind = "bucket"\nurl = "gs://pictures/shop/"\n', [], "set read_buckets"),
    "a private bucket that may be read": (
        '[sources.b]\nkind = "bucket"\nurl = "gs://pictures/shop/"\n',
        ['read_buckets=["gs://pictures"]'],
        None,
    ),
    "a bucket whose name begins the same": (
        '[sources.b]\nkind = "bucket"\nurl = "gs://pictures-2/"\n',
        ['read_buckets=["gs://pictures"]'],
        "set read_buckets",
    ),
    "a public bucket": (
        '[sources.b]\nkind = "bucket"\nurl = "gs://p/s/"\npublic_url = "https://storage.googleapis.com/p/s/"\n',
        [],
        None,
    ),
    "a private bucket of another cloud": ('[sources.b]\nkind = "bucket"\nurl = "s3://p/"\n', [], "public_url"),
    "this machine": (SHOP.format(url="http://localhost:8000/"), [], "of this machine or network"),
    "the network at home": (SHOP.format(url="http://192.168.1.20/api"), [], "of this machine or network"),
    "a name of the network": (SHOP.format(url="http://shop.local/api"), [], "of this machine or network"),
    "IPv6 of this machine": (SHOP.format(url="http://[::1]:80/api"), [], "of this machine or network"),
    "a file": ('[sources.v]\nkind = "video"\nurl = "/films/a.mp4"\ninterval_s = 5\n', [], "a file of this machine"),
    "a file by its name": (
        '[sources.v]\nkind = "video"\nurl = "a.mp4"\ninterval_s = 5\n',
        [],
        "a file of this machine",
    ),
    "a stream": ('[sources.v]\nkind = "video"\nurl = "https://a.example/a.m3u8"\ninterval_s = 5\n', [], None),
    "a video somewhere": (
        '[sources.v]\nkind = "video"\nurl = "${V}"\ninterval_s = 5\n',
        ['source_secrets={V="v"}'],
        None,
    ),
    "capitals": (SHOP.format(url="HTTP://LOCALHOST/"), [], "of this machine or network"),
    "an address cut short": (SHOP.format(url="http://127.1/"), [], "of this machine or network"),
    "an address as a number": (SHOP.format(url="http://2130706433/"), [], "of this machine or network"),
    "a name without a dot": (SHOP.format(url="http://nas:5000/api"), [], "of this machine or network"),
    "a host that is secret": (SHOP.format(url="https://${KEY}/api"), ['source_secrets={KEY="host"}'], None),
    "a public address": (SHOP.format(url="https://8.8.8.8/api"), [], None),
    "half an address": (SHOP.format(url="http://[::1/api"), [], "is not a URL"),
    "a bucket with a slash": ('[sources.b]\nkind = "bucket"\nurl = "gs://p"\n', ['read_buckets=["gs://p/"]'], None),
    "a bucket of which a folder may be read": (
        '[sources.b]\nkind = "bucket"\nurl = "gs://p"\n',
        ['read_buckets=["gs://p/a"]'],
        "set read_buckets",
    ),
    "a number for settings": ("", ["settings=5"], "The variable settings is 5"),
    "a text for a budget": ("", ["budget=5 EUR"], "The variable budget is '5 EUR'"),
    "no settings": ("", ["settings=null"], None),
    "a kind that nobody has": ('[sources.x]\nkind = "telepathy"\n', [], "telepathy"),
    "no TOML": ("[sources", [], "not valid TOML"),
    "a setting": ("", ['settings={links_a_day="5"}'], None),
    "a setting that is none": ("", ['settings={links_per_day="5"}'], "VISOR_LINKS_PER_DAY names no setting"),
    "a setting of another type": ("", ['settings={VISOR_LINKS_A_DAY="many"}'], 'VISOR_LINKS_A_DAY is "many"'),
    "variables that are no HCL": ("", ["settings={"], "cannot be read"),
}


@pytest.mark.parametrize("case", CASES)
def test_works_or_is_refused(case: str, tmp_path: Path) -> None:
    text, variables, said = CASES[case]
    config = tmp_path / "visor.toml"
    config.write_text(text, encoding="utf-8")
    if said is None:
        check_owner(given_variables(tmp_path, variables), config)
        return
    with pytest.raises(SettingsError) as refused:
        check_owner(given_variables(tmp_path, variables), config)
    assert said in str(refused.value)


def test_names_of_what_will_be_crawled(tmp_path: Path) -> None:
    config = tmp_path / "visor.toml"
    config.write_text(
        SHOP.format(url="https://a.example/") + '[sources.off]\nkind = "folder"\npath = "x"\nenabled = false\n'
    )
    assert check_owner({}, config) == ["shop"]
    assert check_owner({}, None) == []


def test_variables_are_read_as_terraform_reads_them(tmp_path: Path) -> None:
    (tmp_path / "terraform.tfvars").write_text(
        '# mine\nindex = "shop"\nsettings = { user_agent = "A \\"b\\"" }\ncors_origins = ["https://a", "https://b"]\n'
    )
    (tmp_path / "more.auto.tfvars").write_text("owner_key_version = 2\npage = null\nmodel = null\n")
    (tmp_path / "cloud.auto.tfvars.json").write_text('{"index": "other", "metrics": true}')
    given = given_variables(
        tmp_path, ["index=third", "project=1.2.3", 'page={title="T", notes=[{text="n"}]}', "crawl_schedule=0 3 * * *"]
    )
    assert given == {
        "index": "third",
        "project": "1.2.3",
        "settings": {"user_agent": 'A "b"'},
        "cors_origins": ["https://a", "https://b"],
        "owner_key_version": 2,
        "metrics": True,
        "page": {"title": "T", "notes": [{"text": "n"}]},
        "crawl_schedule": "0 3 * * *",
    }


def test_variables_that_are_not_utf_8_are_explained(tmp_path: Path) -> None:
    (tmp_path / "terraform.tfvars").write_bytes(b'index = "caf\xe9"')
    with pytest.raises(SettingsError, match=r"terraform\.tfvars cannot be read"):
        given_variables(tmp_path)
