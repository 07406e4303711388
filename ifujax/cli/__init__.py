"""The command line: `ifujax.cli.app.main`."""
