"""The code inside Triton's Python backend; nothing else imports `triton_python_backend_utils`."""
