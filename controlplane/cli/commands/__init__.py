"""The verbs: one file a noun. A file here imports typer and what names things; the rest when a command runs."""
