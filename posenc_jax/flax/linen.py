"""Provides any scheme as a Flax Linen module.

.. code-block:: python

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x_BTD, positions):
            yarn = posenc_jax.linen.Encoding("yarn", head_dim=64, train_length=2048, factor=4.0)
            q, k, v = (nn.DenseGeneral((8, 64), use_bias=False)(x_BTD) for _ in range(3))
            attended = posenc_jax.attend(yarn.at(positions), q, k, v)
            return x_BTD + nn.DenseGeneral(x_BTD.shape[-1], axis=(-2, -1))(attended)
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from flax.core import FrozenDict

from posenc_jax.encoding import Here
from posenc_jax.registry import check_scheme, make


class Encoding(nn.Module):
    """Holds the encoding that ``posenc_jax.make(scheme, **keywords)`` builds, as a Linen module.

    The parameters lie under the module's name, with names as in NNX
    (``params["Encoding_0"]["table"]``), and are drawn from the "params" stream of ``init``;
    ``apply`` needs no stream. A module made in the model's ``setup`` and given to every layer has
    one set of parameters for all layers. A module made in each layer, or under ``nn.scan`` with
    ``variable_axes={"params": 0}``, has one set for each layer.

    Attributes:
      scheme: a key of ``posenc_jax.REGISTRY``.
      keywords: keyword arguments of ``make`` for this scheme.
      nnx: the NNX module, for every other function of posenc_jax; exists where Linen modules are
        bound (inside ``init`` and ``apply``).
    """

    scheme: str
    keywords: FrozenDict

    def __init_subclass__(cls, **options):
        # nn.remat and the like subclass the module, and Linen would write another constructor.
        cls.__init__ = Encoding.__init__  # type: ignore[method-assign]
        super().__init_subclass__(**options)

    def __init__(self, scheme, keywords=None, *, name=None, **settings):
        # The default of Linen's own field means the module in whose code this one is made.
        (parent,) = (field for field in dataclasses.fields(self) if field.name == "parent")
        self.parent = settings.pop("parent", parent.default)
        self.scheme = scheme
        self.keywords = FrozenDict({**(keywords or {}), **settings})
        self.name = name
        self.__post_init__()

    def setup(self):
        check_scheme(self.scheme)

        def draw(key):
            return make(self.scheme, rngs=nnx.Rngs(key), **self.keywords)

        structure, state = nnx.split(jax.eval_shape(draw, jax.random.key(0)))
        if self.is_initializing():
            state = nnx.split(draw(self.make_rng("params")))[1]
        values = nnx.to_pure_dict(state)
        values = {
            name: self.param(name, lambda _, value=value: jax.tree.map(_number, value))
            for name, value in values.items()
        }
        nnx.replace_by_pure_dict(state, values)
        self.nnx = nnx.merge(structure, state)

    def at(self, positions, segment_ids=None, *, index=None, length=None, key=None) -> Here:
        """Returns the encoding at ``positions``, as :meth:`posenc_jax.Encoding.at` does."""
        return self.nnx.at(positions, segment_ids, index=index, length=length, key=key)

    __call__ = at


def _number(value):
    """Returns ``value``, or zeros where only its shape and type are known."""
    return jnp.zeros(value.shape, value.dtype) if isinstance(value, jax.ShapeDtypeStruct) else value
