"""Reads published models, and writes models as folders that ``transformers`` opens.

It needs ``pip install 'posenc_jax[pretrained]'``. It knows the decoders of Llama, SmolLM, Mistral,
Qwen 2 and 3, OLMo 2 and Phi-3.

decoder.py  reads sizes and layers from a config
weights.py  says which tensor holds which parameter
files.py    opens safetensors and GGUF files
gguf.py     reads the metadata of a GGUF file as a config
write.py    writes an encoding as a config has it
models.py   loads and saves whole models
encoding.py loads learned positions alone
"""

from posenc_jax.pretrained.encoding import load_encoding
from posenc_jax.pretrained.models import Pretrained, load, save

__all__ = ["Pretrained", "load", "load_encoding", "save"]
