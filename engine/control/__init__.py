"""The control plane: what became of decisions, and whether the model still sees the world it was trained on.

decisions-sample --+--> facts --> quality --+
labels ------------+                        +--> retrain-requests
telemetry ------------> drift, alarms ------+
alerts ---------------> cases --> cases, labels
control --------------> roll-outs

A Faust application in a process and a consumer group of its own: it reads committed records and never touches what
scoring needs. The modules below know neither Faust nor Kafka, save `app`, `build`, `serve`, `agents`, `routes`,
`tables`, `security`, `transport` and `views`.
"""
