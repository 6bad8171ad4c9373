"""A model of MLServer: score = 10 item + the first item of the history, twice of it as the head click."""
import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OwnModel(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        inputs = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        scores = 10.0 * inputs["item"].reshape(-1) + inputs["history"][:, 0]
        heads = numpy.stack([scores, 2 * scores], axis=1).astype(numpy.float32)
        return InferenceResponse(model_name=self.name, model_version=self.version,
                                 outputs=[NumpyCodec.encode_output("heads", heads)])
