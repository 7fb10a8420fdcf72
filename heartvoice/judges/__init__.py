"""Opens judges of sound: the export builds their networks, the evaluation uses them."""
