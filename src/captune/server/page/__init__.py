"""The web page of `captune app`."""
