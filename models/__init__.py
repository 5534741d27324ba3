"""The models: store, gate, training, and the ONNX Runtime session that scores."""

import os

# Official builds of ONNX Runtime 1.29 and later keep a device id in the user's home and report sessions and models to
# their maker. Whether they may is read once, when the library is loaded: it must stand here, before any import of it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# With it, a session would have the settings that its model brings, or else the usual ones, and not those it is given.
os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)
