"""Adapters: databases, feeds, brokers and files; the only code that touches the outside."""
