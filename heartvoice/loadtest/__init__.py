"""Load tests of a server (`heartvoice bench`)."""
