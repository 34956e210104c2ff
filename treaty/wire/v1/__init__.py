"""Generated from proto/ by tools/proto.py. Do not edit."""
