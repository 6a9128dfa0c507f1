"""The consumers of one worker, and the loop that moves them between the queues."""
