"""What happens to a notification: accepted, relayed, attempted, and looked after."""
