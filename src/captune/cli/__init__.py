"""The verbs as commands of the terminal."""
