"""What a request costs: ``make bench`` measures CPU per request and event, and memory per open stream."""
