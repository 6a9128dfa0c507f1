"""`make demo`: 2,000 notifications with mixed fates through a real `notifier dev`, checked.

The demo uses only HTTP. It compares the API's statuses with the call log of the sandbox.
"""
