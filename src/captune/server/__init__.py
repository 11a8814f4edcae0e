"""What people and programs reach by a browser or over HTTP."""
