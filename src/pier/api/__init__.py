"""The Engine API over HTTP: one module per group of operations, and `pierd`, which serves it (`daemon`)."""
