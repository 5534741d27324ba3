"""Whether a control plane says the truth: a load whose every event is known, labels of it, and what is said of both."""
