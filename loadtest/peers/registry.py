"""All peers, in the order of the table."""

from loadtest.peers.java_peers import FLINK_PROCESS, FLINK_SQL, STREAMS, STREAMS_SLIDING
from loadtest.peers.python_peers import FAUST, QUIX, QUIX_SLIDING
from loadtest.peers.tidegate import TIDEGATE

_ALL = (TIDEGATE, QUIX, QUIX_SLIDING, FAUST, FLINK_SQL, FLINK_PROCESS, STREAMS, STREAMS_SLIDING)
PEERS = {peer.name: peer for peer in _ALL}
