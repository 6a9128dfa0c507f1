"""`make demo`: 2,000 notifications with mixed fates through a real `notifier dev`, checked.

It speaks HTTP only, and believes the log of the sandbox, not Notifier's own figures.
"""
