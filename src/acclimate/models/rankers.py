"""Networks that score rows: the standard ones of the field, over one form of input.

A ranker owns no table: embeddings come looked up, so that a table may grow and be updated row by row. Any module
with ``forward(inputs) -> logits`` does in a ranker's place.
"""

import importlib
import importlib.util
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from acclimate.errors import ConfigError, nearest


class Inputs(NamedTuple):
    """What a ranker reads of ``n`` rows.

    ``dense``: ``(n, k)`` standardised numbers. ``wide``: ``(n, F)`` a weight, and ``embedded``: ``(n, F, d)`` a
    vector of each field's names.
    """

    dense: Tensor
    wide: Tensor
    embedded: Tensor

    @property
    def names(self) -> Tensor:
        """Weight and vector of each field, as the table has them, ``(n, F, 1 + d)``."""
        return torch.cat([self.wide[..., None], self.embedded], -1)


@dataclass(frozen=True)
class Sizes:
    """What a ranker is made for.

    ``dense`` columns ``k``, ``fields`` ``F``, ``embedding`` ``d``, the widths of its ``hidden`` layers, the number
    of its ``crosses`` (DCN-v2) and its ``dropout``.
    """

    dense: int
    fields: int
    embedding: int
    hidden: Sequence[int] = (128, 64)
    crosses: int = 2
    dropout: float = 0.0

    @property
    def flat(self) -> int:
        """Numbers of a row once all of it is laid side by side."""
        return self.dense + self.fields * self.embedding


class Ranker(nn.Module, ABC):
    """``logit = head(hidden(x)) + shallow(x)``: a last layer that is linear, so that its posterior is known."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)

    @abstractmethod
    def hidden(self, inputs: Inputs) -> Tensor:
        """What the head reads, ``(n, h)``."""

    def shallow(self, inputs: Inputs) -> Tensor:
        """The part of the logit that passes the head by, ``(n,)``."""
        return inputs.wide.sum(1)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``(n,)``."""
        return self.head(self.hidden(inputs)).squeeze(1) + self.shallow(inputs)


class Logistic(Ranker):
    """Logistic regression: a weight of each name and of each number."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes.dense)
        nn.init.zeros_(self.head.weight)

    def hidden(self, inputs: Inputs) -> Tensor:
        """The numbers."""
        return inputs.dense


class MLP(Ranker):
    """Layers over all embeddings and numbers side by side."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes.hidden[-1] if sizes.hidden else sizes.flat)
        self.layers = _layers(sizes.flat, sizes)

    def hidden(self, inputs: Inputs) -> Tensor:
        """The last layer."""
        return self.layers(side_by_side(inputs))

    def shallow(self, inputs: Inputs) -> Tensor:
        """Nothing."""
        return inputs.dense.new_zeros(len(inputs.dense))


class WideAndDeep(MLP):
    """An MLP beside a logistic regression (Cheng et al. 2016)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.wide = _linear(sizes.dense)

    def shallow(self, inputs: Inputs) -> Tensor:
        """The logistic regression."""
        return inputs.wide.sum(1) + self.wide(inputs.dense).squeeze(1)


class DeepFM(WideAndDeep):
    """Products of all pairs of embeddings beside wide-and-deep (Guo et al. 2017); numbers have one together."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.embed = nn.Linear(sizes.dense, sizes.embedding, bias=False)

    def shallow(self, inputs: Inputs) -> Tensor:
        """The logistic regression and the factorisation machine."""
        vectors = torch.cat([inputs.embedded, self.embed(inputs.dense)[:, None]], 1)
        # sum_{f<g} v_f . v_g = 1/2 (|sum_f v_f|^2 - sum_f |v_f|^2) (Rendle 2010, lemma 3.1)
        pairs = 0.5 * (vectors.sum(1).square().sum(1) - vectors.square().sum((1, 2)))
        return super().shallow(inputs) + pairs


class DCN(Ranker):
    """Cross layers, and layers beside them (DCN-v2, Wang et al. 2021, the parallel form)."""

    def __init__(self, sizes: Sizes) -> None:
        deep = sizes.hidden[-1] if sizes.hidden else 0
        super().__init__(sizes.flat + deep)
        self.layers = _layers(sizes.flat, sizes) if sizes.hidden else None
        self.crosses = nn.ModuleList(nn.Linear(sizes.flat, sizes.flat) for _ in range(sizes.crosses))

    def hidden(self, inputs: Inputs) -> Tensor:
        """The last cross and the last layer."""
        first = x = side_by_side(inputs)
        for cross in self.crosses:
            x = first * cross(x) + x  # equation 1
        return x if self.layers is None else torch.cat([x, self.layers(first)], 1)


def side_by_side(inputs: Inputs) -> Tensor:
    """All that layers read of rows, ``(n, flat)``: embeddings, then numbers."""
    return torch.cat([inputs.embedded.flatten(1), inputs.dense], 1) if inputs.embedded.shape[1] else inputs.dense


def _layers(width: int, sizes: Sizes) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip([width, *sizes.hidden], sizes.hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(sizes.dropout)] if sizes.dropout else [])]
    return nn.Sequential(*layers)


def _linear(width: int) -> nn.Linear:
    """A linear layer that starts at nothing."""
    layer = nn.Linear(width, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


RANKERS: dict[str, Callable[[Sizes], nn.Module]] = {
    "logistic": Logistic,
    "mlp": MLP,
    "wide-and-deep": WideAndDeep,
    "deepfm": DeepFM,
    "dcn-v2": DCN,
}


def make_ranker(name: str, sizes: Sizes, seed: int) -> nn.Module:
    """A ranker by its name, or what ``package.module:Name`` makes of the sizes; the seed is that of its weights.

    ``file.py:Name`` names one in a file.

    Raises:
        ConfigError: there is none.
    """
    make: Any = RANKERS.get(name) or _imported(name)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of no numbers, or of no names
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA devices too
        module = make(sizes)
    if name not in RANKERS:
        _check(name, module, sizes)
    return module


def has_last_layer(name: str) -> bool:
    """Whether a ranker of that name has a last layer that is known.

    Raises:
        ConfigError: there is none.
    """
    made_by: Any = RANKERS.get(name) or _imported(name)
    return issubclass(made_by, Ranker)


def with_last_layer(module: nn.Module) -> Ranker:
    """The module, if its last layer is known.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(module, Ranker):
        raise ConfigError(
            f"a {type(module).__name__} has no last layer that is known",
            hint="derive it from acclimate.models.rankers.Ranker, or use variance: linearised",
        )
    return module


def _check(name: str, module: Any, sizes: Sizes) -> None:
    """That a module of the user's own can be learned and saved.

    Raises:
        ConfigError: it cannot.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"ranker '{name}' makes a {type(module).__name__}, not a torch.nn.Module")
    if buffers := [buffer for buffer, _ in module.named_buffers()]:
        raise ConfigError(
            f"ranker '{name}' has buffers ({buffers[0]}), which no gradient learns",
            hint="use LayerNorm in place of BatchNorm, or make them parameters",
        )
    shapes = ((2, sizes.dense), (2, sizes.fields), (2, sizes.fields, sizes.embedding))
    with torch.no_grad():
        logits = module(Inputs(*(torch.zeros(shape) for shape in shapes)))
    if tuple(logits.shape) != (2,):
        raise ConfigError(f"ranker '{name}' gives logits of shape {tuple(logits.shape)} for 2 rows, not (2,)")


def _imported(name: str) -> Any:
    module, separator, attribute = name.rpartition(":")
    if not separator:
        hint = nearest(name, RANKERS) or "or package.module:Name, or file.py:Name"
        raise ConfigError(f"no ranker '{name}'", hint=hint)
    try:
        ranker = getattr(_module(module), attribute)
    except (ImportError, AttributeError, ValueError, OSError, SyntaxError) as error:
        raise ConfigError(f"ranker '{name}' cannot be imported: {error}") from error
    if not isinstance(ranker, type):
        raise ConfigError(f"ranker '{name}' is no class", hint="it takes Sizes and is a torch.nn.Module")
    return ranker


def _module(name: str) -> ModuleType:
    """A module by its name, or of the file of that path, which is run once."""
    if not name.endswith(".py") or name in sys.modules:
        return importlib.import_module(name)
    spec: Any = importlib.util.spec_from_file_location(name, name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module
