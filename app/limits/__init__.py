"""What a key or a team may use: decided before a request is sent, corrected after it."""
