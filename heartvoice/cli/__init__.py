"""The commands of `heartvoice`. Each is imported only when it runs."""
