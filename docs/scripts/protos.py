"""Writes the protocol as .proto files into proto/, from the descriptors of the package `tritonclient`.

python -m docs.scripts.protos           # says which file differs; ends with 1 if one does
python -m docs.scripts.protos --write   # writes them
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

FOLDER = Path(__file__).resolve().parents[2] / "proto"
HEAD = """\
// The KServe v2 protocol as Triton and heartvoice speak it, written from the descriptors of the package tritonclient
// ({source}; Copyright NVIDIA CORPORATION, BSD-3-Clause: see LICENSE in this folder).
// Names, numbers and types alone: the protocol's own documentation is
// https://github.com/kserve/open-inference-protocol
"""
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {value: name.removeprefix("TYPE_").lower() for name, value in _Field.Type.items()}


def _type_of(field: Any, package: str) -> str:
    name: str = field.type_name
    return name.removeprefix(f".{package}.").removeprefix(".") if name else _SCALARS[field.type]


def _field(field: Any, package: str, nested: dict[str, Any]) -> str:
    entry = nested.get(field.type_name.rpartition(".")[2])
    if entry is not None and entry.options.map_entry:
        key, value = (_type_of(part, package) for part in entry.field)
        return f"map<{key}, {value}> {field.name} = {field.number};"
    label = "repeated " if field.label == _Field.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    options = " [deprecated = true]" if field.options.deprecated else ""
    return f"{label}{_type_of(field, package)} {field.name} = {field.number}{options};"


def _enum(enum: Any) -> Iterator[str]:
    yield f"enum {enum.name} {{"
    yield from (f"  {value.name} = {value.number};" for value in enum.value)
    yield "}"


def _message(message: Any, package: str) -> Iterator[str]:
    nested = {inner.name: inner for inner in message.nested_type}
    yield f"message {message.name} {{"
    for enum in message.enum_type:
        yield from (f"  {line}" for line in _enum(enum))
    for inner in message.nested_type:
        if not inner.options.map_entry:
            yield from (f"  {line}" for line in _message(inner, package))
    unions: set[int] = set()
    for field in message.field:
        if not field.HasField("oneof_index") or field.proto3_optional:
            yield f"  {_field(field, package, nested)}"
        elif field.oneof_index not in unions:
            unions.add(field.oneof_index)
            yield f"  oneof {message.oneof_decl[field.oneof_index].name} {{"
            members = (each for each in message.field if each.HasField("oneof_index"))
            same = (each for each in members if each.oneof_index == field.oneof_index and not each.proto3_optional)
            yield from (f"    {_field(each, package, nested)}" for each in same)
            yield "  }"
    yield "}"


def _service(service: Any, package: str) -> Iterator[str]:
    yield f"service {service.name} {{"
    for method in service.method:
        given, answered = (name.removeprefix(f".{package}.") for name in (method.input_type, method.output_type))
        given = f"stream {given}" if method.client_streaming else given
        answered = f"stream {answered}" if method.server_streaming else answered
        yield f"  rpc {method.name}({given}) returns ({answered}) {{}}"
    yield "}"


def text_of(descriptor: Any) -> str:
    """Return a file of the protocol as text."""
    file = descriptor_pb2.FileDescriptorProto()
    descriptor.CopyToProto(file)
    lines = [HEAD.format(source=file.name), f'syntax = "{file.syntax}";', "", f"package {file.package};", ""]
    lines += [f'import "{name}";' for name in file.dependency]
    for service in file.service:
        lines += ["", *_service(service, file.package)]
    for enum in file.enum_type:
        lines += ["", *_enum(enum)]
    for message in file.message_type:
        lines += ["", *_message(message, file.package)]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {each.DESCRIPTOR.name: text_of(each.DESCRIPTOR) for each in (service_pb2, model_config_pb2)}


def outdated() -> list[str]:
    """Return the names of the files that differ from what is in the folder."""
    return [
        name
        for name, text in files().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]


def main() -> None:
    """Write the files, or say which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them")
    if parser.parse_args().write:
        FOLDER.mkdir(exist_ok=True)
        for name, text in files().items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return
    if outdated():
        print("differ:", ", ".join(outdated()), "(python -m docs.scripts.protos --write)")
        sys.exit(1)


if __name__ == "__main__":
    main()
