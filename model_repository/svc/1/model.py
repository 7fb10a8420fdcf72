from heartvoice.serving.svc import SvcModel as TritonPythonModel
