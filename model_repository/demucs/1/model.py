from heartvoice.serving.demucs import DemucsModel as TritonPythonModel
