from heartvoice.serving.render import RenderModel as TritonPythonModel
