"""Speed and memory measurements: one module each, with a dataclass `Options` and
`run(options, log) -> (document, tables)`."""
