"""C2PA provenance: the operator's keys, signed manifests of what is written, and their verification."""
