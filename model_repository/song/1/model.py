from heartvoice.serving.song import SongModel as TritonPythonModel
