from heartvoice.serving.heartmula import HeartmulaModel as TritonPythonModel
