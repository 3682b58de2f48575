"""What the admin API takes and gives, as its OpenAPI document tells it."""
