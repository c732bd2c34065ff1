"""The flags that stand before the command, the same for every one of them."""

from __future__ import annotations

from pier.cli.flags import Flag

GLOBAL_USAGE = "[OPTIONS] COMMAND [ARG...]"
GLOBAL_FLAGS = (
    Flag("config", "", "string", "Directory of the client's configuration files", "~/.docker"),
    Flag("context", "c", "string", 'Name of the context to use; only "default" exists yet'),
    Flag("debug", "D", "bool", "Show the traceback of a defect in pier itself"),
    Flag("host", "H", "list", "Daemon to talk to: unix:///path or tcp://host:port"),
    Flag("log-level", "l", "string", "debug, info, warn, error or fatal", "info"),
    Flag("tls", "", "bool", "Use TLS; --tlsverify implies it"),
    Flag("tlscacert", "", "string", "CA certificate that must have signed the daemon's", "~/.docker/ca.pem"),
    Flag("tlscert", "", "string", "Client certificate", "~/.docker/cert.pem"),
    Flag("tlskey", "", "string", "Key of the client certificate", "~/.docker/key.pem"),
    Flag("tlsverify", "", "bool", "Use TLS and check the daemon's certificate"),
    Flag("version", "v", "bool", "Print the version and quit"),
)
