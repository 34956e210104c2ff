"""gRPC at the edge of the coordinator: identity, roles, limits and the mapping to domain types."""
