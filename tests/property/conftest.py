from hypothesis import settings

settings.register_profile("tidegate", deadline=None, max_examples=200, print_blob=True)
settings.load_profile("tidegate")
