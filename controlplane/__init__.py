"""The coordinator: what a supranational body runs. See docs/architecture.md."""
