"""Which strategy: facts about pictures, backbone and machine, rules with reasons, a configuration that runs."""
