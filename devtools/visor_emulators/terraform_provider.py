"""A stand-in for hashicorp/google: its real schema, and a project that is kept in memory. Real Terraform talks to it.

    with StandIn(Project(), schema) as provider:
        subprocess.run(["terraform", "apply"], env=provider.environ(os.environ))

The project refuses what Google refuses: services that are off, accounts that do not exist, permissions that are not in
effect yet, members that a policy forbids, sizes that Cloud Run does not have, data that is protected. Its time is
simulated: it passes when Terraform runs `sleep`, which `environ` puts before the real one.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec

from visor_emulators.terraform_protocol import handlers, message

Values = dict[str, Any]
UNKNOWN = msgspec.msgpack.Ext(0, b"\0")
NUMBER = "123456789012"
ERROR = 1
SERVICE_OF = {
    "google_artifact_registry": "artifactregistry", "google_billing": "billingbudgets",
    "google_cloud_run": "run", "google_cloud_scheduler": "cloudscheduler",
    "google_cloudfunctions2": "cloudfunctions", "google_firestore": "firestore", "google_logging": "logging",
    "google_pubsub": "pubsub", "google_secret_manager": "secretmanager", "google_service_account": "iam",
    "google_storage": "storage",
}  # fmt: skip
PUBLIC = {"allUsers", "allAuthenticatedUsers"}


class Refused(Exception):
    """What Google would answer instead."""


@dataclass
class Project:
    """A Google Cloud project, as far as Terraform can tell.

    Args:
        grants_hold_after_s: Simulated time until a permission takes effect everywhere.
        services_on_after_s: The same for a service that Terraform enables.
        services: Those that were on before.
        identities: Services whose own accounts were created.
        constraints: Policies of the organisation that are enforced.
    """

    grants_hold_after_s: float = 120.0
    services_on_after_s: float = 0.0
    services: set[str] = field(default_factory=set)
    identities: set[str] = field(default_factory=set)
    constraints: set[str] = field(default_factory=set)
    there: list[tuple[str, Values]] = field(default_factory=list)
    """What was made and not destroyed, in order."""
    granted: list[tuple[float, Values]] = field(default_factory=list)
    enabled: dict[str, float] = field(default_factory=dict)
    slept: Path = field(default_factory=lambda: Path(tempfile.mkdtemp()) / "slept")

    @property
    def now(self) -> float:
        return sum(map(float, self.slept.read_text().split())) if self.slept.exists() else 0.0

    def of(self, type_: str) -> list[Values]:
        return [values for kind, values in self.there if kind == type_]

    def make(self, type_: str, values: Values) -> None:
        """Add or change one resource.

        Raises:
            Refused: The API would not have it.
        """
        self._service_is_on(type_)
        if "member" in values and "role" in values:
            self._grant(type_, values)
        if type_ == "google_project_service":
            self.enabled.setdefault(values["service"].partition(".")[0], self.now)
        if type_ == "google_cloudfunctions2_function":
            _check_size(values["service_config"][0])
            self._can_build(values["build_config"][0]["service_account"])
            self._can_read_secrets(values["service_config"][0])

    def destroy(self, type_: str, values: Values) -> None:
        """Remove one resource.

        Raises:
            Refused: It is protected.
        """
        if values.get("delete_protection_state") == "DELETE_PROTECTION_ENABLED":
            raise Refused("Error 400: Delete protection is enabled for this database")
        if type_ == "google_storage_bucket" and not values.get("force_destroy"):
            raise Refused(f"Error trying to delete bucket {values['name']} containing objects without `force_destroy`")

    def _service_is_on(self, type_: str) -> None:
        service = next((name for prefix, name in SERVICE_OF.items() if type_.startswith(prefix)), None)
        if service is None or service in self.services:
            return
        if service not in self.enabled or self.now < self.enabled[service] + self.services_on_after_s:
            raise Refused(
                f"Error 403: {service}.googleapis.com has not been used in project {NUMBER} before or it is disabled."
            )

    def _grant(self, type_: str, values: Values) -> None:
        member = values["member"]
        if member in PUBLIC and "iam.allowedPolicyMemberDomains" in self.constraints:
            raise Refused("Error 400: One or more users named in the policy do not belong to a permitted customer.")
        if (
            member in PUBLIC
            and type_.startswith("google_storage")
            and "storage.publicAccessPrevention" in (self.constraints)
        ):
            raise Refused("Error 412: The member bindings allUsers and allAuthenticatedUsers are not allowed since "
                          "public access prevention is enforced.")  # fmt: skip
        agent = re.search(r"@gcp-sa-(\w+)\.", member)
        if agent and agent[1] not in self.identities:
            raise Refused(f"Error 400: Service account {member.partition(':')[2]} does not exist.")
        self.granted.append((self.now, values))

    def _holds(self, account: str, role: str) -> bool:
        return any(
            role == values["role"] and values["member"].endswith(account) and at + self.grants_hold_after_s <= self.now
            for at, values in self.granted
        )

    def _can_build(self, account: str) -> None:
        email = account.rpartition("/")[2]
        for role in ("roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer"):
            if not self._holds(email, role):
                raise Refused(
                    "Error waiting for Creating function: Build failed with status: FAILURE. Could not build the "
                    f"function due to a missing permission on the build service account ({email} lacks {role})."
                )

    def _can_read_secrets(self, service: Values) -> None:
        for secret in service["secret_environment_variables"] or []:
            if not self._holds(service["service_account_email"], "roles/secretmanager.secretAccessor"):
                raise Refused(f"Permission denied on secret: {secret['secret']} for Revision service account")


def _check_size(service: Values) -> None:
    """Raises Refused for sizes that Cloud Run does not have (docs: configuring/cpu, configuring/memory-limits)."""
    cpu, memory = float(service["available_cpu"]), float(service["available_memory"].removesuffix("Mi"))
    if not (cpu in (1, 2, 4, 6, 8) or 0.08 <= cpu < 1) or round(cpu, 3) != cpu:
        raise Refused(f"Error 400: Invalid value specified for cpu: {cpu}")
    if cpu < 1 and service["max_instance_request_concurrency"] != 1:
        raise Refused("Error 400: Total cpu < 1 is not supported with concurrency > 1.")
    most = 512 if cpu < 0.5 else 1024 if cpu < 1 else {1: 4, 2: 8, 4: 16, 6: 24, 8: 32}[int(cpu)] * 1024
    least = {4: 2048, 6: 4096, 8: 4096}.get(int(cpu), 128)
    if not least <= memory <= most or memory != int(memory):
        raise Refused(f"Error 400: Invalid value specified for memory: {memory}Mi with {cpu} cpu")


class StandIn:
    """Serves the protocol on its own socket until it is closed.

    Args:
        schema: As scripts/terraform_schema.py writes it.
    """

    def __init__(self, project: Project, schema: dict[str, Any]) -> None:
        self.project, self.resources, self.data = project, schema["resources"], schema["data"]
        self._folder = tempfile.TemporaryDirectory(prefix="tf")
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((handlers(self),))
        self._address = f"{self._folder.name}/socket"
        self._server.add_insecure_port(f"unix://{self._address}")

    def __enter__(self) -> StandIn:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
        self._folder.cleanup()

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment for Terraform: it asks this provider, no registry, and sleeps in simulated time."""
        programs = Path(self._folder.name) / "bin"
        programs.mkdir(exist_ok=True)
        sleep = programs / "sleep"
        sleep.write_text(f'#!/bin/sh\necho "$1" >> "{self.project.slept}"\n')
        sleep.chmod(0o755)
        address = {"Network": "unix", "String": self._address}
        attached = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": address}
        return {
            **environ,
            "PATH": f"{programs}{os.pathsep}{environ['PATH']}",
            "TF_REATTACH_PROVIDERS": json.dumps({"hashicorp/google": attached}),
            "TF_CLI_CONFIG_FILE": os.devnull,
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }

    # The calls of the protocol, by its names.

    def GetMetadata(self, _: Any) -> Values:  # noqa: N802
        return {"resources": _types(self.resources), "data_sources": _types(self.data)}

    def GetProviderSchema(self, _: Any) -> Values:  # noqa: N802
        provider = {name: {"type": kind, "required": False} for name, kind in PROVIDER.items()}
        return {
            "provider": _schema({"arguments": provider, "attributes": [], "blocks": {}}),
            "resource_schemas": [{"key": name, "value": _schema(known)} for name, known in self.resources.items()],
            "data_source_schemas": [{"key": name, "value": _schema(known)} for name, known in self.data.items()],
        }

    def _well(self, _: Any) -> Values:
        return {}

    ValidateProviderConfig = ValidateResourceConfig = ValidateDataResourceConfig = ConfigureProvider = _well
    StopProvider = _well

    def UpgradeResourceState(self, request: Any) -> Values:  # noqa: N802
        return {"upgraded_state": _packed(json.loads(request.raw_state.json))}

    def ReadResource(self, request: Any) -> Values:  # noqa: N802
        return {"new_state": request.current_state}

    def PlanResourceChange(self, request: Any) -> Values:  # noqa: N802
        proposed, prior = _unpacked(request.proposed_new_state), _unpacked(request.prior_state)
        for name in proposed or ():
            # Write-only: neither the plan nor the state may hold it.
            proposed[name] = None if name.endswith("_wo") else proposed[name]
        if proposed is not None and prior is None:
            proposed = _with_unknown(self.resources[request.type_name], proposed)
        return {"planned_state": _packed(proposed)}

    def ApplyResourceChange(self, request: Any) -> Values:  # noqa: N802
        type_, prior, values = request.type_name, _unpacked(request.prior_state), _unpacked(request.planned_state)
        try:
            if values is None:
                self.project.destroy(type_, prior)
                with suppress(ValueError):
                    self.project.there.remove((type_, prior))
                return {"new_state": _packed(None)}
            known = _known(self.resources[type_], values, values, type_)
            self.project.make(type_, known)
        except Refused as exc:
            # As the provider: a function that could not be built is there, and is made again.
            left = prior if values is None or type_ != "google_cloudfunctions2_function" else known
            return {"new_state": _packed(left), "diagnostics": [{"severity": ERROR, "summary": str(exc)}]}
        if prior is not None:
            self.project.there.remove((type_, prior))
        self.project.there.append((type_, known))
        return {"new_state": _packed(known)}

    def ReadDataSource(self, request: Any) -> Values:  # noqa: N802
        return {"state": _packed({**_unpacked(request.config), "number": NUMBER, "id": "projects/my-project"})}


PROVIDER = {
    "project": "string", "region": "string", "billing_project": "string", "user_project_override": "boolean",
    "default_labels": "map(string)",
}  # fmt: skip
KINDS = {"string": "string", "number": "number", "boolean": "bool", "any": "string"}
MADE_BY_GOOGLE = ("id", "project", "member")
"""Arguments that Google fills in if they are left out; the others stay as they are."""


def _types(names: Mapping[str, Any]) -> list[Values]:
    return [{"type_name": name} for name in names]


def _schema(known: Values) -> Any:
    return message("Schema")(block=_block(known))


def _block(known: Values) -> Any:
    arguments, blocks = known["arguments"], known["blocks"]
    attributes = [
        message("Attribute")(
            name=name,
            type=json.dumps(_type(one["type"])).encode(),
            required=one["required"],
            optional=not one["required"],
            computed=not one["required"] and not name.endswith("_wo"),
            write_only=name.endswith("_wo"),
        )
        for name, one in arguments.items()
    ]
    read = [name for name in known["attributes"] if name not in arguments and name not in blocks]
    attributes += [message("Attribute")(name=name, type=b'"string"', computed=True) for name in read]
    nested = [
        message("NestedBlock")(
            type_name=name,
            block=_block(one),
            nesting=2,
            min_items=int(one["required"]),
            max_items=0 if one["many"] else 1,
        )
        for name, one in blocks.items()
    ]
    return message("Block")(attributes=attributes, block_types=nested)


def _type(kind: str) -> Any:
    """Terraform's JSON of a type of the schema's."""
    found = re.fullmatch(r"(map|list)\((.*)\)", kind)
    return [found[1], _type(found[2])] if found else KINDS[kind]


def _with_unknown(known: Values, values: Values) -> Values:
    """Values that are known only after apply, marked as such."""
    for name in known["attributes"]:
        is_made = name not in known["arguments"] or name in MADE_BY_GOOGLE
        if name in values and values[name] is None and name not in known["blocks"] and is_made:
            values[name] = UNKNOWN
    for name, one in known["blocks"].items():
        for inner in values.get(name) or []:
            _with_unknown(one, inner)
    return values


def _known(known: Values, values: Values, top: Values, type_: str) -> Values:
    """The values, with everything filled in that Google creates."""
    for name, value in values.items():
        if isinstance(value, msgspec.msgpack.Ext):
            values[name] = _made(name, top, type_)
        for inner in (value or []) if name in known["blocks"] else []:
            _known(known["blocks"][name], inner, top, type_)
    return values


def _made(name: str, top: Values, type_: str) -> str:
    keys = ("name", "account_id", "service", "secret_id", "role_id")
    own = next((top[key] for key in keys if isinstance(top.get(key), str)), "x")
    email = f"{own}@my-project.iam.gserviceaccount.com"
    every = {
        "uri": f"https://{own}-abc-uc.a.run.app",
        "email": email,
        "member": f"serviceAccount:{email}",
        "project": "my-project",
        "id": f"{type_}/{'/'.join(_parts(top, own))}/{email if type_ == 'google_service_account' else own}",
    }
    return every.get(name, f"known-{name}")


def _parts(top: Values, own: str) -> Iterator[str]:
    """What distinguishes a grant from others on the same resource."""
    yield from (top[key] for key in ("role", "member") if isinstance(top.get(key), str))


def _packed(values: Values | None) -> Any:
    return message("DynamicValue")(msgpack=msgspec.msgpack.encode(values))


def _unpacked(value: Any) -> Any:
    return msgspec.msgpack.decode(value.msgpack) if value.msgpack else None
