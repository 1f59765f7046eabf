"""Many runs, or runs elsewhere: sweeps over settings, jobs of a cluster. Imports no torch until something trains."""
