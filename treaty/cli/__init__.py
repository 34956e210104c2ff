"""What every program of the project has in common on the command line: how it is put together and how it ends."""
