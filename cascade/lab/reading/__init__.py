"""From any file of a user's, or from stored runs, to rows with labels, and what a person says of them."""
