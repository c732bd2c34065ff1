"""`--publish` and `--expose`: port texts to the API's ExposedPorts and PortBindings.

Forms: `80`, `8080:80`, `127.0.0.1:8080:80`, `[::1]:8080:80`, `127.0.0.1::80`, `7000-7009:7000-7009`,
`7000-7009:80` (the daemon picks one), each with `/tcp`, `/udp` or `/sctp`; and
`published=8080,target=80,protocol=tcp,mode=ingress`.
"""

from __future__ import annotations

from pier.cli.values import parse_ip
from pier.cli.words import quote

_PROTOCOLS = ("tcp", "udp", "sctp")

Bindings = dict[str, list[dict[str, str]]]


def publish(texts: list[str]) -> Bindings:
    """`80/tcp` -> [{HostIp, HostPort}] for all `--publish` values. ValueError in Docker's words."""
    bindings: Bindings = {}
    for text in texts:
        for port, binding in _publish_one(_from_long(text) if "=" in text else text):
            known = bindings.setdefault(port, [])
            if binding not in known:
                known.append(binding)
    return bindings


def expose(texts: list[str]) -> list[str]:
    """`["80", "90-91/udp"]` -> `["80/tcp", "90/udp", "91/udp"]`."""
    ports: list[str] = []
    for text in texts:
        if ":" in text:
            raise ValueError(f"invalid port format for --expose: {text}")
        numbers, _, protocol = text.partition("/")
        try:
            first, last = _range(numbers)
        except ValueError as error:
            raise ValueError(f"invalid range format for --expose: {text}, error: {error}") from None
        ports += [f"{number}/{(protocol or 'tcp').lower()}" for number in range(first, last + 1)]
    return ports


def _from_long(text: str) -> str:
    """The `key=value` form as the short one."""
    fields = {"target": "", "published": "", "protocol": "tcp", "mode": ""}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or key.lower() not in fields:
            raise ValueError(f"invalid field key {key}" if equals else f"invalid field {field}")
        fields[key.lower()] = value.lower()
    if not fields["target"]:
        raise ValueError('mandatory field "target" not specified')
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}"


def _publish_one(text: str) -> list[tuple[str, dict[str, str]]]:
    spec, slash, protocol = text.partition("/")
    address, host, container = _split(spec)
    if not container:
        raise ValueError("no port specified: " + text + "<empty>")
    if slash and protocol.lower() not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    protocol = protocol.lower() or "tcp"
    first, last = _named_range(container, "containerPort")
    if not host:
        return [(f"{number}/{protocol}", _binding(address, "")) for number in range(first, last + 1)]
    host_first, host_last = _named_range(host, "hostPort")
    if last - first != host_last - host_first:
        if first != last:
            raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
        return [(f"{first}/{protocol}", _binding(address, f"{host_first}-{host_last}"))]
    offset = host_first - first
    return [(f"{number}/{protocol}", _binding(address, str(number + offset))) for number in range(first, last + 1)]


def _split(spec: str) -> tuple[str, str, str]:
    """(address, host port, container port); the address may be an IPv6 one, with or without brackets."""
    parts = spec.split(":")
    container = parts.pop()
    host = parts.pop() if parts else ""
    address = ":".join(parts)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address:
        try:
            parse_ip(address)
        except ValueError:
            raise ValueError(f"invalid IP address: {address}") from None
    return address, host, container


def _binding(address: str, port: str) -> dict[str, str]:
    return {"HostIp": address, "HostPort": port}


def _named_range(text: str, name: str) -> tuple[int, int]:
    try:
        return _range(text)
    except ValueError:
        raise ValueError(f"invalid {name}: {text}") from None


def _range(text: str) -> tuple[int, int]:
    if not text:
        raise ValueError("empty string specified for ports")
    first_text, dash, last_text = text.partition("-")
    first = _number(first_text)
    last = _number(last_text) if dash else first
    if last < first:
        raise ValueError(f"invalid range specified for port: {text}")
    return first, last


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    if int(text) > 65535:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return int(text)
