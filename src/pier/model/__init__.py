"""The Engine API's vocabulary: the structs that the API, the services, the command line and the tests share.

Structs carry the name of their schema in Docker's API contract; attributes are the snake_case of the JSON key. Where a
key is missing or null, an attribute has Docker's zero value. `wire.decode` and `wire.encode` are the way in and out.
"""
