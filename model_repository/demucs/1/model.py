from heartvoice.serving.separation import DemucsModel as TritonPythonModel
