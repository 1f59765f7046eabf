"""Commands that look at data, backbone and settings, and train nothing or little."""
