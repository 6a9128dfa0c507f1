"""What people ask of many notifications: operations are carried out step by step."""
