"""Chaos on a real broker: workers and brokers are killed while events are decided, and a checker judges what came out.

application   topics, configuration          worker, crew   the processes, and who of them is active
broker        a Kafka that may be killed     rounds         what is done to whom, by a seed
feed          the input, at its pace         director       does it, and waits for the successor
probe         offsets, as anyone can ask     arrivals       when decisions came
checker       reads everything anew afterwards: topics, ledger, journal, offline
"""
