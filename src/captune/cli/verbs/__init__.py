"""One file for each verb; `captune.cli.main` loads the one that is asked for."""
