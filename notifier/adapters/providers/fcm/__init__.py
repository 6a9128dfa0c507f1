"""Push over the HTTP v1 API of Firebase Cloud Messaging (FCM)."""
