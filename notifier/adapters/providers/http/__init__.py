"""Providers that take one HTTP request per notification: SMS gateways, FCM, webhooks."""
