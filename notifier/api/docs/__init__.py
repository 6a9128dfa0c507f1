"""The OpenAPI document and the reference page, both generated from the route table."""
