"""From labelled outcomes to a policy with a guarantee, or an honest refusal."""
