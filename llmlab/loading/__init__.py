"""From a model's name to a load plan: forms, choice, files, memory; switching and removing."""
