"""The same small job on other engines: the job and its oracle, who runs it, and what is measured of each."""
