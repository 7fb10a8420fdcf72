"""The singing-voice converter: requests, features, flow and vocoder."""
