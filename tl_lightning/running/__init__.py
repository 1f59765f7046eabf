"""Many runs at once: sweeps over settings. Imports no torch until something trains, so that it answers at once."""
