"""The messages of BuildKit's protocols: `*.proto` are written by hand, `*_pb2.py` and `*_pb2.pyi` by `make protos`."""
