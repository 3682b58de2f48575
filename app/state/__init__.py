"""What the gateway keeps of responses for upstreams that keep nothing, so that ``previous_response_id`` works there."""
