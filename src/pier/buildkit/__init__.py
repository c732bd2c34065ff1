"""BuildKit's own door to the builder: gRPC for its clients (buildx, bake, compose), on connections from the API."""
