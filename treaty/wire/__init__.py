"""What both sides need to speak gRPC: generated messages, certificates, credentials, limits, status codes."""
