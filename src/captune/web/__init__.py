"""Models behind HTTP: `captune serve` (`captune.web.server.create_app` for a server of your own)."""
