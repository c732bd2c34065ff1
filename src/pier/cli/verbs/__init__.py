"""One module a verb: each exports `COMMAND` (its flags, as data) and `run(cx, opts, args) -> exit status`."""
