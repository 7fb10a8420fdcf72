from heartvoice.serving.cover import CoverModel as TritonPythonModel
