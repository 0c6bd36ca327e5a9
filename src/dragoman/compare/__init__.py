"""Many runs under equal budgets, side by side: what is learned from how they differ."""
