"""Where commands are run: one file per engine, each with the interface of `core.engine.Engine`."""
