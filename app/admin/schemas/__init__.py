"""What the admin API takes and answers, as its OpenAPI document shows it."""
