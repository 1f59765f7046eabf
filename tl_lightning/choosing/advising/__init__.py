"""Which strategy: facts about images, backbone and machine, rules with reasons, a configuration that runs."""
