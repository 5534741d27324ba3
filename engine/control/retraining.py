"""An alarm that lasts asks for another model, once in a while.

alarm     |------------------------------------------->
             after              pause
request           ^                            ^
"""

import msgspec

from engine.control.alarms import Alarms, Asked
from engine.control.records import RetrainRequest
from engine.control.settings import Retraining
from features.durations import duration_ms

# Signals that another model can do something about: that data is late or missing, it cannot.
_OF_THE_MODEL = ("psi:", "psi_score", "precision", "recall")


def asked_for(alarms: Alarms, application_id: str, settings: Retraining) -> tuple[Alarms, RetrainRequest | None]:
    """The request that the last look gives rise to, if any, and the alarms that know of it."""
    at_ms, model = alarms.looked_at_ms, alarms.model
    before = next((asked.at_ms for asked in alarms.asked if asked.model == model), None)
    if before is not None and at_ms < before + duration_ms(settings.pause):
        return alarms, None
    lasting = {
        name: alarm
        for name, alarm in alarms.raised.items()
        if name.startswith(_OF_THE_MODEL) and at_ms - alarm.raised_at_ms >= duration_ms(settings.after)
    }
    if not lasting:
        return alarms, None
    request = RetrainRequest(
        # Of what was looked at, not of when: whoever looks again at the same asks for the same.
        request_id=f"{application_id}-{model.replace('/', '-')}-{at_ms}",
        application_id=application_id,
        model=model,
        at_ms=at_ms,
        evidence={
            name: {
                "value": alarm.value,
                "limit": alarm.limit,
                "events": float(alarm.events),
                "raised_at_ms": float(alarm.raised_at_ms),
            }
            for name, alarm in lasting.items()
        },
    )
    others = [asked for asked in alarms.asked if asked.model != model]
    return msgspec.structs.replace(alarms, asked=[*others, Asked(model, at_ms)]), request
