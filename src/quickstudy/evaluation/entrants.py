"""Who takes part in a contest: the learner, itself before adapting, its ablations, and the baselines of its tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from quickstudy.data.exact import Exact
from quickstudy.data.known import ClassWorld, DensityWorld
from quickstudy.data.source import PoolSource, Split, TaskSource, World
from quickstudy.episode import Episode, leaves
from quickstudy.evaluation.ablations import ablations
from quickstudy.evaluation.contest import BagOfTokens, Contest, Contestant
from quickstudy.evaluation.labels import share_of_support
from quickstudy.evaluation.rules import ridge_of_support, support_mean
from quickstudy.learners import LEARNERS
from quickstudy.learners.base import Learner
from quickstudy.learners.closed_form import LinearHead
from quickstudy.learners.metric import ProtoNet
from quickstudy.likelihood import Bernoulli, Categorical, JointGaussian, Labels
from quickstudy.nn.encoders import Encoder, RawEncoder
from quickstudy.nn.minilm import PretrainedError
from quickstudy.nn.pretrained import HuggingFaceEncoder


def untrained_copy(encoder: Encoder) -> Encoder:
    """An encoder of the same build with fresh random weights.

    Raises:
        TypeError: a layer of the encoder cannot be initialised anew; build the encoder again instead.
    """
    fresh = copy.deepcopy(encoder)
    for name, module in fresh.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        elif next(module.parameters(recurse=False), None) is not None:
            raise TypeError(
                f"Layer {name!r} of the encoder has no reset_parameters method; pass a function that builds the "
                "encoder as it was before training."
            )
    return fresh


def starting_encoder(
    encoder: Encoder, untrained: Callable[[], Encoder] | None, seed: int
) -> tuple[str, Encoder | None]:
    """The encoder as it was before meta-training and the name of its baseline; None when nobody can tell."""
    if not encoder.pretrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = untrained_copy(encoder) if untrained is None else untrained()
        return "nearest_mean_untrained_encoder", fresh
    name = "nearest_mean_pretrained_encoder"
    if isinstance(encoder, HuggingFaceEncoder) and encoder.frozen:
        # What was pretrained is unchanged; only the layers on top were trained.
        bare = copy.copy(encoder)
        bare._modules = {**encoder._modules, "layers": nn.Sequential()}
        return name, bare
    try:
        return name, None if untrained is None else untrained()
    except PretrainedError:
        return name, None


def contest_of(
    learner: Learner,
    source: TaskSource,
    *,
    split: Split = "test",
    seed: int = 0,
    against: Learner | None = None,
    baselines: bool = True,
    untrained: Callable[[], Encoder] | None = None,
    device: torch.device | str = "cpu",
    ablate: bool = False,
    unlabelled: bool = False,
) -> Contest:
    """A contest of ``learner``, itself before adaptation, its baselines and perhaps another learner.

    The arguments are those of :func:`evaluate`; ``unlabelled``: tasks bring examples without a label, and the learner
    takes part without them as well.
    """
    contest = Contest(source, split=split, seed=seed, device=device)
    contest.enter(
        "learner",
        learner,
        unadapted="before_adaptation",
        without_unlabelled="without_unlabelled" if unlabelled else None,
    )
    if against is not None:
        contest.enter("against", against)
    if ablate:
        for name, plainer in ablations(learner).items():
            contest.enter(name, plainer)
            contest.ablations.append(name)
    if baselines and isinstance(source, World):
        _enter_rules(contest, source, together=isinstance(learner.likelihood, JointGaussian))
    elif baselines and isinstance(source, ClassWorld):
        _enter_knowing(contest, source)
    elif baselines and isinstance(source, PoolSource):
        _enter_classifiers(contest, learner, untrained)
    return contest


def _enter_rules(contest: Contest, world: World, *, together: bool) -> None:
    """The baselines of tasks that predict values; ``together``: the exact answer is about all queries together."""

    def exact(episode: Episode) -> Exact:
        episode = episode.to("cpu")
        found = world.exact(episode)
        if together and isinstance(world, DensityWorld):
            # To each query its share, so that their mean is that of the whole.
            share = world.exact_joint(episode)[:, None].expand_as(episode.query.mask)
            return found._replace(log_density=share)
        return found

    contest.enter_rule("mean_of_support", support_mean)
    contest.enter_rule("ridge_raw_inputs", ridge_of_support)
    contest.enter_rule("exact", exact, bare=True)


def _enter_knowing(contest: Contest, world: ClassWorld) -> None:
    """The baselines of invented tasks that tell classes apart."""
    for name, learner in (
        ("nearest_mean_raw_inputs", "protonet"),
        ("logistic_raw_inputs", "linear_head"),
    ):
        build: Callable[[Encoder], Learner] = LEARNERS[learner]
        contest.enter(name, build(RawEncoder(world.inputs)))
    contest.contestants["exact"] = Contestant(
        lambda episode: world.exact(episode.to("cpu")), Categorical(), world, nn.Identity()
    )


def _enter_classifiers(
    contest: Contest, learner: Learner, untrained: Callable[[], Encoder] | None
) -> None:
    """The baselines of tasks that tell classes apart, or where an example may have many labels."""
    labels: Labels = "many" if isinstance(learner.likelihood, Bernoulli) else "one"
    if labels == "many":
        contest.contestants["most_frequent"] = Contestant(
            share_of_support, Bernoulli(), contest.contestants["learner"].source, nn.Identity()
        )
    raw = contest.read_by(learner.encoder)
    assert isinstance(raw, PoolSource)
    x = leaves(raw.pool(contest.split).x)
    plain: Encoder
    if contest.source.kind == "text":
        words = x[0]
        plain = BagOfTokens(words[words >= 0].unique())
    else:
        plain = RawEncoder(x[0][0].numel())
    # Texts differ in length, which only the angle ignores.
    text = contest.source.kind == "text"
    nearest = ProtoNet(plain, distance="cosine" if text else "euclidean", labels=labels)
    if contest.source.kind != "several":  # parts of unlike kinds have no distance of their own
        contest.enter("nearest_mean_raw_inputs", nearest, raw)

    name, fresh = starting_encoder(learner.encoder, untrained, contest.seed)
    if fresh is not None:
        contest.enter(name, ProtoNet(fresh, distance="euclidean", labels=labels))

    # A learner that encodes alike in every task reads what its encoder makes of the examples already.
    reads_features = learner.fixed_encoding and not learner.inner_loop
    trained = contest.contestants["learner"].source if reads_features else None
    head = LinearHead(RawEncoder(learner.encoder.width), labels=labels)
    contest.enter("linear_head", head, trained or contest.encoded(learner.encoder))
