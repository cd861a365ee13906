"""From labelled rows to a local expert, an honest graph and a certificate or a refusal."""
