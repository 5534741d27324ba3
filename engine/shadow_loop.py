"""What the process of a challenger does: load, and then score one micro-batch after another until nobody asks."""

from engine.assemble import load_model_of, policy_program
from engine.kafka.shadow import ShadowTopic
from engine.observe.logs import set_up_logs
from engine.policy.lists import Lists
from engine.serving import serving_of
from engine.shadow_wire import Channel, Failed, Loaded, Refused, Scored, Seen
from models.assignment import CHALLENGER
from models.errors import ModelError


def work(channel: Channel) -> None:
    """Until the other end is closed."""
    task = channel.task()
    config = task.config
    set_up_logs(config.observe)
    spec = config.feature_spec()
    try:
        model = load_model_of(config, spec, task.reference)
    except ModelError as error:
        channel.send(Refused(str(error)))
        return
    program, lists = policy_program(config, spec), Lists(())
    serving = serving_of(spec, model, program, lists, with_features=config.kafka.decision_features, role=CHALLENGER)

    with ShadowTopic(config) as topic:
        channel.send(Loaded(model.facts))
        while (batch := _next(channel)) is not None:
            events, matrix = batch.batch(), batch.matrix()
            try:
                probabilities = model.score(matrix.values)
            except ModelError as error:
                channel.send(Failed(str(error)))
                continue
            decisions = serving.decider.decide(events, matrix.values, probabilities)
            topic.put(serving.encoder.encode_decisions(events, matrix, decisions))
            channel.send(Scored(topic.undelivered()))


def _next(channel: Channel) -> Seen | None:
    try:
        return channel.batch()
    except (EOFError, ConnectionError):
        return None
