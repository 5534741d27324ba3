"""`python -m loadtest run` and `capacity`: what one worker does under a load that is planned, seen from outside.

driver (a process) --> Kafka --> worker (a process) --> Kafka --> reader (a thread) --> tally
                                   \\-- /metrics, every few seconds --> scraper (a thread)  |
                                            figures, as JSON and as a page <---------------+
"""
