"""What only the library's log tells: that the connection of a producer of transactions broke."""

import logging
import re

_log = logging.getLogger("tidegate.kafka")

# How the library's log tells that the connection to the coordinator broke, or that a request got no answer. Nothing
# else does: it connects anew, asks again, and the call ends well.
BROKEN = re.compile(r"(FAIL|REQTMOUT) .*TxnCoordinator")


class Connection(logging.Handler):
    """Listens to a producer's log, and passes on what the log's readers want to see."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = 0
        self.logger = logging.Logger("tidegate.kafka.transaction")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.broken += BROKEN.match(record.getMessage()) is not None
        if _log.isEnabledFor(record.levelno):
            _log.handle(record)
