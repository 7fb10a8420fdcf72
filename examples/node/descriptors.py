"""Write the KServe v2 protocol as a FileDescriptorSet, which every gRPC library reads: `descriptors.py kserve.desc`.

Its source is the `tritonclient` package, whose generated classes carry it; the package holds no .proto files.
"""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2

protocol = FileDescriptorSet()
for module in (model_config_pb2, service_pb2):
    module.DESCRIPTOR.CopyToProto(protocol.file.add())
Path(sys.argv[1]).write_bytes(protocol.SerializeToString())
