"""Pure functions: returns, risk, trust regions, safety-critic formulas. No self, no logger, no configuration."""
