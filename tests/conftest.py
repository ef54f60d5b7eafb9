"""For all tests: no deadline for a property's example, as machines are shared and noisy."""

import hypothesis

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
