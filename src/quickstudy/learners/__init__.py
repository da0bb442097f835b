"""Every learner by name; ``LEARNERS`` is the only list of them."""

from __future__ import annotations

from quickstudy.learners.autoregressive import AutoregressiveNeuralProcess
from quickstudy.learners.base import Learner
from quickstudy.learners.bayesian_linear import BayesianLinear
from quickstudy.learners.cavia import CAVIA
from quickstudy.learners.closed_form import LinearHead, Ridge
from quickstudy.learners.conditional_process import ConditionalNeuralProcess
from quickstudy.learners.context import InContext
from quickstudy.learners.cross_encoder import CrossEncoder
from quickstudy.learners.deep_kernel import DeepKernel
from quickstudy.learners.fine_tuning import FineTuning
from quickstudy.learners.gradient import MAML
from quickstudy.learners.implicit import ImplicitMAML
from quickstudy.learners.matching import MatchingNetwork
from quickstudy.learners.memory import MetaTransformer
from quickstudy.learners.metric import ProtoNet
from quickstudy.learners.neural_process import TransformerNeuralProcess
from quickstudy.learners.relation import RelationNetwork
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.set_attention import FEAT
from quickstudy.learners.snail import SNAIL
from quickstudy.learners.soft_prototypes import SoftPrototypes
from quickstudy.learners.tables import Tables

LEARNERS: dict[str, type[Learner]] = {
    "protonet": ProtoNet,
    "soft_prototypes": SoftPrototypes,
    "matching": MatchingNetwork,
    "relation": RelationNetwork,
    "feat": FEAT,
    "cross_encoder": CrossEncoder,
    "ridge": Ridge,
    "in_context": InContext,
    "maml": MAML,
    "reptile": Reptile,
    "imaml": ImplicitMAML,
    "cavia": CAVIA,
    "linear_head": LinearHead,
    "fine_tune": FineTuning,
    "bayesian_linear": BayesianLinear,
    "deep_kernel": DeepKernel,
    "neural_process": TransformerNeuralProcess,
    "autoregressive_process": AutoregressiveNeuralProcess,
    "conditional_process": ConditionalNeuralProcess,
    "snail": SNAIL,
    "tables": Tables,
    "meta_transformer": MetaTransformer,
}


def semi_supervised_learners() -> list[str]:
    """Names of the learners that learn from examples without a label as well.

    >>> semi_supervised_learners()
    ['fine_tune', 'linear_head', 'soft_prototypes']
    """
    return sorted(name for name, learner in LEARNERS.items() if learner.semi_supervised)
