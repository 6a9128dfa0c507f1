"""The providers: ways to send. `type` in a provider's settings names one of `registry`."""
