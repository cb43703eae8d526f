"""The safety filter: guards, critic veto, environment wrapper."""
