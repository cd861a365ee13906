"""Everything that works on recorded data rather than on a request."""
