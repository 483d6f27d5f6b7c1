"""Terraform's plugin protocol 6 as far as a stand-in provider speaks it: messages by field number, and their calls.

The messages are declared here and not generated, because published stubs are bound to older versions of protobuf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES = {"string": 9, "bytes": 12, "bool": 8, "int64": 3}
_MESSAGES = {
    "DynamicValue": "msgpack:bytes=1 json:bytes=2",
    "Diagnostic": "severity:int64=1 summary:string=2 detail:string=3",
    "RawState": "json:bytes=1",
    "Attribute": "name:string=1 type:bytes=2 required:bool=4 optional:bool=5 computed:bool=6 write_only:bool=11",
    "NestedBlock": "type_name:string=1 block:Block=2 nesting:int64=3 min_items:int64=4 max_items:int64=5",
    "Block": "version:int64=1 attributes:Attribute*=2 block_types:NestedBlock*=3",
    "Schema": "version:int64=1 block:Block=2",
    "SchemaEntry": "key:string=1 value:Schema=2",
    "Type": "type_name:string=1",
    "GetMetadata": " -> diagnostics:Diagnostic*=2 data_sources:Type*=3 resources:Type*=4",
    "GetProviderSchema": " -> provider:Schema=1 resource_schemas:SchemaEntry*=2 data_source_schemas:SchemaEntry*=3",
    "ValidateProviderConfig": "config:DynamicValue=1 -> diagnostics:Diagnostic*=2",
    "ValidateResourceConfig": "type_name:string=1 config:DynamicValue=2 -> diagnostics:Diagnostic*=1",
    "ValidateDataResourceConfig": "type_name:string=1 config:DynamicValue=2 -> diagnostics:Diagnostic*=1",
    "UpgradeResourceState": "type_name:string=1 version:int64=2 raw_state:RawState=3 -> upgraded_state:DynamicValue=1",
    "ConfigureProvider": "terraform_version:string=1 config:DynamicValue=2 -> diagnostics:Diagnostic*=1",
    "ReadResource": "type_name:string=1 current_state:DynamicValue=2 -> new_state:DynamicValue=1",
    "PlanResourceChange": "type_name:string=1 prior_state:DynamicValue=2 proposed_new_state:DynamicValue=3"
    " -> planned_state:DynamicValue=1 diagnostics:Diagnostic*=4",
    "ApplyResourceChange": "type_name:string=1 prior_state:DynamicValue=2 planned_state:DynamicValue=3"
    " -> new_state:DynamicValue=1 diagnostics:Diagnostic*=3",
    "ReadDataSource": "type_name:string=1 config:DynamicValue=2 -> state:DynamicValue=1 diagnostics:Diagnostic*=2",
    "StopProvider": " -> error:string=1",
}
"""Name to its fields; a call has those of its request, an arrow, and those of its response."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="visor/tfplugin6.proto", package="tfplugin6", syntax="proto3")
    for name, text in _MESSAGES.items():
        request, arrow, response = text.partition(" -> ")
        for suffix, fields in (("Request", request), ("Response", response)) if arrow else (("", request),):
            message = file.message_type.add(name=name + suffix)
            for field in fields.split():
                key, _, rest = field.partition(":")
                kind, _, number = rest.partition("=")
                many, kind = kind.endswith("*"), kind.rstrip("*")
                added = message.field.add(name=key, number=int(number), label=3 if many else 1)
                added.type = _TYPES.get(kind, 11)
                if kind not in _TYPES:
                    added.type_name = f".tfplugin6.{kind}"
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """The class of a message, e.g. `Block` or `ReadResourceResponse`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"tfplugin6.{name}"))


def handlers(provider: object) -> grpc.GenericRpcHandler:
    """Calls of the protocol, answered by the methods of `provider` of the same names.

    A method gets the request, and returns the fields of the response.
    """

    def handler(name: str) -> grpc.RpcMethodHandler:
        answer: Callable[[Any], dict[str, Any]] = getattr(provider, name)
        response = message(name + "Response")
        return grpc.unary_unary_rpc_method_handler(
            lambda request, _: response(**answer(request)),
            request_deserializer=message(name + "Request").FromString,
            response_serializer=response.SerializeToString,
        )

    calls = {name: handler(name) for name, text in _MESSAGES.items() if " -> " in text}
    return grpc.method_handlers_generic_handler("tfplugin6.Provider", calls)
